//! Words by the angles between their vectors.

use reparam_formats::word_vectors::WordVectors;

/// A word and how near it is.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Neighbour {
    /// The word.
    pub word: String,
    /// The cosine of the angle.
    pub cosine: f64,
}

/// The `k` words whose vectors have the least angle to a word's, the word itself left out; `None` if it has no vector. Words of
/// equal angles are in the order of the table.
///
/// # Cost
///
/// One pass over the table.
#[must_use]
pub fn nearest_words(vectors: &WordVectors, word: &str, k: usize) -> Option<Vec<Neighbour>> {
    let id = vectors.id(word)?;
    let query: Vec<f64> = vectors.row(id).iter().map(|x| f64::from(*x)).collect();
    Some(nearest(vectors, &query, &[id], k))
}

/// The `k` words that are to `c` as `b` is to `a` (king to man as what to woman: `a` = man, `b` = king, `c` = woman), the three
/// left out; `None` if one of them has no vector.
///
/// 3CosAdd: with vectors of length 1, the words `w` with the greatest `cos(w, b - a + c)` (O. Levy and Y. Goldberg,
/// "Linguistic Regularities in Sparse and Explicit Word Representations", 2014, equation 1).
#[must_use]
pub fn analogy(
    vectors: &WordVectors,
    a: &str,
    b: &str,
    c: &str,
    k: usize,
) -> Option<Vec<Neighbour>> {
    let ids = [vectors.id(a)?, vectors.id(b)?, vectors.id(c)?];
    let [a, b, c] = ids.map(|id| unit(vectors.row(id)));
    let query: Vec<f64> = (0..vectors.dim()).map(|i| b[i] - a[i] + c[i]).collect();
    Some(nearest(vectors, &query, &ids, k))
}

/// The cosine of the angle between two vectors; 0 if one is zero.
pub(super) fn cosine(a: &[f64], b: &[f32]) -> f64 {
    let (mut dot, mut a_square, mut b_square) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let b = f64::from(*b);
        dot += a * b;
        a_square += a * a;
        b_square += b * b;
    }
    let lengths = (a_square * b_square).sqrt();
    if lengths == 0.0 { 0.0 } else { dot / lengths }
}

fn unit(vector: &[f32]) -> Vec<f64> {
    let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let length = if square == 0.0 { 1.0 } else { square.sqrt() };
    vector.iter().map(|x| f64::from(*x) / length).collect()
}

fn nearest(vectors: &WordVectors, query: &[f64], without: &[usize], k: usize) -> Vec<Neighbour> {
    let rows = vectors.table().chunks_exact(vectors.dim()).enumerate();
    let others = rows.filter(|(id, _)| !without.contains(id));
    let mut found: Vec<(usize, f64)> = others.map(|(id, row)| (id, cosine(query, row))).collect();
    let nearer = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k < found.len() {
        found.select_nth_unstable_by(k, nearer);
        found.truncate(k);
    }
    found.sort_unstable_by(nearer);
    let neighbours = found.into_iter().map(|(id, cosine)| Neighbour {
        word: vectors.words()[id].clone(),
        cosine,
    });
    neighbours.collect()
}
