//! How well tags meet the entities of a text.

use std::collections::BTreeMap;

use super::labels::Labels;

#[cfg(test)]
mod tests;

/// What [`EntityScorer`] measures, with 0 where a quotient does not exist.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityMetrics {
    /// The share of predicted entities that are right: the same first and last token, and the same type.
    pub precision: f64,
    /// The share of actual entities that are predicted.
    pub recall: f64,
    /// `2 precision recall / (precision + recall)`.
    pub f1: f64,
    /// The share of tokens whose tag is right.
    pub accuracy: f64,
    /// The entities of each type, by its name.
    pub types: BTreeMap<String, EntityCounts>,
    /// Tokens.
    pub tokens: usize,
}

/// Numbers of entities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntityCounts {
    /// Those that are there.
    pub actual: usize,
    /// Those that are predicted.
    pub predicted: usize,
    /// Those that are both.
    pub right: usize,
}

impl EntityCounts {
    /// `right / predicted`, or 0.
    #[must_use]
    pub fn precision(&self) -> f64 {
        share(self.right, self.predicted)
    }

    /// `right / actual`, or 0.
    #[must_use]
    pub fn recall(&self) -> f64 {
        share(self.right, self.actual)
    }

    /// `2 right / (actual + predicted)`, or 0.
    #[must_use]
    pub fn f1(&self) -> f64 {
        share(2 * self.right, self.actual + self.predicted)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}

/// What a sentence adds to [`EntityScorer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityScore {
    /// The entities of each type that it has.
    types: Vec<(String, EntityCounts)>,
    right: usize,
    tokens: usize,
}

/// A run of tokens of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity<'a> {
    /// Its first token.
    pub first: usize,
    /// Its last token.
    pub last: usize,
    /// Its type; `_` where tags have none.
    pub name: &'a str,
}

/// A tag as what stands before and behind its hyphen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    /// Where in an entity the token is: `B`egin, `I`nside, `E`nd, `S`ingle; or `O`utside of one.
    place: char,
    name: String,
}

impl Tag {
    fn outside() -> Self {
        Self {
            place: 'O',
            name: "_".to_owned(),
        }
    }

    /// Reads a tag as seqeval does: its first letter, and what follows the first hyphen behind it or all the rest.
    fn of(text: &str, middle: bool) -> Self {
        let mut characters = text.chars();
        let Some(letter) = characters.next() else {
            return Self::outside();
        };
        let rest = characters.as_str();
        let name = rest.split_once('-').map_or(rest, |(_, name)| name);
        let is_middle = letter == 'M' && (rest.starts_with('-') || (rest.is_empty() && middle));
        Self {
            place: if is_middle { 'I' } else { letter },
            name: if name.is_empty() { "_" } else { name }.to_owned(),
        }
    }

    /// Whether an entity ends between this tag and the next one.
    fn ends_before(&self, next: &Self) -> bool {
        match (self.place, next.place) {
            ('E' | 'S', _) | ('B' | 'I', 'B' | 'S' | 'O') => true,
            ('O' | '.', _) => false,
            _ => self.name != next.name,
        }
    }

    /// Whether an entity begins with this tag, given the one before.
    fn begins_after(&self, previous: &Self) -> bool {
        match (previous.place, self.place) {
            (_, 'B' | 'S') | ('E' | 'S' | 'O', 'E' | 'I') => true,
            (_, 'O' | '.') => false,
            _ => self.name != previous.name,
        }
    }
}

/// Counts entities sentence by sentence, as seqeval does in its default mode.
///
/// The tags are IOB2, IOB1, BIOES or BMES; the `M` of BMES, which seqeval does not know, is its `I`. An entity need not begin
/// with `B`: it begins with the first tag of a type, so that what a model predicts has entities, too, where it breaks the
/// rules of a scheme. The rules are those of the CoNLL evaluation: see seqeval 1.2.2, `start_of_chunk` and `end_of_chunk`.
///
/// ```
/// use reparam_data::rows::{EntityScorer, LabelKind, Labels};
///
/// let labels = Labels::new(["O", "B-PER", "I-PER"].map(String::from).to_vec(), LabelKind::One)?;
/// let mut scorer = EntityScorer::new(&labels);
/// // Of two entities, one is found as it is and one without its last token.
/// scorer.add(&[1, 2, 0, 1, 2], &[1, 2, 0, 1, 0].map(Some));
/// let found = scorer.finish().ok_or("no tokens")?;
/// assert_eq!((found.precision, found.recall, found.accuracy), (0.5, 0.5, 0.8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct EntityScorer {
    tags: Vec<Tag>,
    types: BTreeMap<String, EntityCounts>,
    right: usize,
    tokens: usize,
}

impl EntityScorer {
    /// Starts with no sentences. The names of the classes are the tags.
    #[must_use]
    pub fn new(labels: &Labels) -> Self {
        let names = labels.names();
        // Without types, an `M` alone is a middle if there is a beginning and an end; else it is some tag.
        let middle = ["B", "E"]
            .iter()
            .all(|tag| names.iter().any(|name| name == tag));
        Self {
            tags: names.iter().map(|name| Tag::of(name, middle)).collect(),
            types: BTreeMap::new(),
            right: 0,
            tokens: 0,
        }
    }

    /// Adds a sentence: the classes of its tokens and those predicted. A token without a prediction counts as outside of all
    /// entities and as wrong.
    ///
    /// # Panics
    ///
    /// If there are not as many predictions as classes, or a class is outside.
    pub fn add(&mut self, classes: &[usize], predicted: &[Option<usize>]) {
        let score = self.score(classes, predicted);
        self.count(&score);
    }

    /// Returns what a sentence adds: see [`add`](Self::add).
    ///
    /// # Panics
    ///
    /// As there.
    #[must_use]
    pub fn score(&self, classes: &[usize], predicted: &[Option<usize>]) -> EntityScore {
        assert_eq!(classes.len(), predicted.len(), "one prediction a token");
        let pairs = classes.iter().zip(predicted);
        let right = pairs.filter(|(class, predicted)| **predicted == Some(**class));
        let right = right.count();
        let actual = entities(&self.tags, classes.iter().map(|class| Some(*class)));
        let predicted = entities(&self.tags, predicted.iter().copied());
        let mut types: BTreeMap<&str, EntityCounts> = BTreeMap::new();
        for entity in &actual {
            types.entry(entity.name).or_default().actual += 1;
        }
        for entity in &predicted {
            let counts = types.entry(entity.name).or_default();
            counts.predicted += 1;
            // Entities of one sentence rise, so they are found by halves.
            counts.right += usize::from(actual.binary_search(entity).is_ok());
        }
        let types = types.into_iter();
        EntityScore {
            types: types
                .map(|(name, counts)| (name.to_owned(), counts))
                .collect(),
            right,
            tokens: classes.len(),
        }
    }

    /// Adds a sentence by what [`score`](Self::score) says of it.
    pub fn count(&mut self, score: &EntityScore) {
        self.right += score.right;
        self.tokens += score.tokens;
        for (name, counts) in &score.types {
            let all = match self.types.get_mut(name) {
                Some(all) => all,
                None => self.types.entry(name.clone()).or_default(),
            };
            all.actual += counts.actual;
            all.predicted += counts.predicted;
            all.right += counts.right;
        }
    }

    /// The entities that a sentence's classes say, in order.
    ///
    /// # Panics
    ///
    /// If a class is outside.
    #[must_use]
    pub fn entities(&self, classes: &[Option<usize>]) -> Vec<Entity<'_>> {
        entities(&self.tags, classes.iter().copied())
    }

    /// Returns the measures, or `None` without tokens.
    #[must_use]
    pub fn finish(&self) -> Option<EntityMetrics> {
        if self.tokens == 0 {
            return None;
        }
        let mut all = EntityCounts::default();
        for counts in self.types.values() {
            all.actual += counts.actual;
            all.predicted += counts.predicted;
            all.right += counts.right;
        }
        Some(EntityMetrics {
            precision: all.precision(),
            recall: all.recall(),
            f1: all.f1(),
            accuracy: share(self.right, self.tokens),
            types: self.types.clone(),
            tokens: self.tokens,
        })
    }
}

fn entities(tags: &[Tag], classes: impl Iterator<Item = Option<usize>>) -> Vec<Entity<'_>> {
    let outside = &Tag::outside();
    let tag = |class: Option<usize>| class.map(|class| &tags[class]);
    let mut found = Vec::new();
    let mut previous: Option<&Tag> = None;
    let mut first = 0;
    // What is behind the last token is outside.
    for (at, class) in classes.map(tag).chain([None]).enumerate() {
        let (before, next) = (previous.unwrap_or(outside), class.unwrap_or(outside));
        if let Some(tag) = previous
            && before.ends_before(next)
        {
            found.push(Entity {
                first,
                last: at - 1,
                name: &tag.name,
            });
        }
        if next.begins_after(before) {
            first = at;
        }
        previous = class;
    }
    found
}
