use proptest::prelude::*;

use super::*;

#[test]
fn the_permutation_is_frozen() {
    // From an implementation of the documented algorithm in another language.
    assert_eq!(permutation(10, 0, 0), [4, 2, 9, 0, 8, 1, 7, 5, 3, 6]);
    assert_eq!(permutation(10, 0, 1), [6, 8, 3, 7, 1, 9, 5, 2, 0, 4]);
    assert_eq!(permutation(10, 1, 0), [6, 1, 0, 4, 9, 8, 5, 3, 2, 7]);
    assert_eq!(
        permutation(10, u64::MAX, u64::MAX),
        [0, 4, 2, 7, 3, 1, 8, 9, 6, 5]
    );
    let order = permutation(1000, 42, 3);
    assert_eq!(order[..8], [230, 32, 139, 344, 649, 398, 426, 534]);
    let checksum: usize = order
        .iter()
        .enumerate()
        .map(|(place, block)| place * block)
        .sum();
    assert_eq!(checksum, 251402285);
}

#[test]
fn short_permutations() {
    assert_eq!(permutation(0, 1, 2), [0usize; 0]);
    assert_eq!(permutation(1, 1, 2), [0]);
}

#[test]
fn every_place_is_equally_likely() {
    // 4 blocks in 24_000 epochs: every block is in every place 6_000 times in the mean, with a standard deviation of
    // sqrt(24_000 * 1/4 * 3/4) = 67. Five of them is one chance in a million for each of the sixteen.
    let mut counts = [[0i32; 4]; 4];
    for epoch in 0..24_000 {
        for (place, block) in permutation(4, 7, epoch).into_iter().enumerate() {
            counts[place][block] += 1;
        }
    }
    for count in counts.into_iter().flatten() {
        assert!((count - 6_000).abs() < 5 * 67, "{counts:?}");
    }
}

#[test]
fn batches_run_on_over_the_epochs() {
    let plan = BatchPlan::new(5, 2, 3, true).unwrap();
    let (first, second) = (permutation(5, 3, 0), permutation(5, 3, 1));
    assert_ne!(first, second);
    assert_eq!(plan.batch(0), first[..2]);
    assert_eq!(plan.batch(2), [first[4], second[0]]);
    assert_eq!(plan.batch(3), second[1..3]);
    assert_eq!(
        [0, 1, 2, 3, 4, 5].map(|step| plan.epoch(step)),
        [0, 0, 0, 1, 1, 2]
    );
    assert_eq!(
        [0, 1, 2, 3].map(|epochs| plan.steps_for(epochs)),
        [0, 3, 5, 8]
    );
    assert_eq!(plan.batch_size(), 2);
}

#[test]
fn few_blocks_repeat_in_a_batch() {
    let plan = BatchPlan::new(2, 5, 0, false).unwrap();
    assert_eq!(plan.batch(0), [0, 1, 0, 1, 0]);
    assert_eq!(plan.batch(1), [1, 0, 1, 0, 1]);
}

#[test]
fn the_last_step_there_is_has_a_batch() {
    let plan = BatchPlan::new(3, usize::MAX, 0, true).unwrap();
    assert_eq!(plan.steps_for(0), 0);
    let plan = BatchPlan::new(3, 4, 0, true).unwrap();
    assert_eq!(plan.batch(u64::MAX).len(), 4);
    assert_eq!(plan.batch(u64::MAX), plan.batch(u64::MAX));
}

#[test]
fn impossible_plans_are_errors() {
    assert!(matches!(
        BatchPlan::new(0, 1, 0, true),
        Err(DataError::NoBlocks)
    ));
    assert!(matches!(
        BatchPlan::new(1, 0, 0, true),
        Err(DataError::ZeroBatchSize)
    ));
}

#[test]
fn the_tail_is_held_out() {
    for (n, fraction, expected) in [
        (10, 0.0, 10),
        (0, 0.0, 0),
        (10, 0.2, 8),
        (10, 0.26, 7),
        (10, 0.001, 9),
        (10, 0.999, 1),
        (2, 0.5, 1),
    ] {
        assert_eq!(split(n, fraction).unwrap(), expected, "{n} {fraction}");
    }
    for n in [0, 1] {
        let error = split(n, 0.1).unwrap_err();
        assert!(matches!(error, DataError::TooFewToSplit { pieces } if pieces == n));
        assert!(error.hint().is_some());
    }
    for fraction in [-0.1, 1.0, 2.0, f64::NAN, f64::INFINITY] {
        let error = split(10, fraction).unwrap_err();
        assert!(
            matches!(error, DataError::EvalFraction { .. }),
            "{fraction}"
        );
        assert!(error.hint().is_some());
    }
}

proptest! {
    #[test]
    fn a_permutation_permutes(n in 0usize..200, seed in any::<u64>(), epoch in any::<u64>()) {
        let order = permutation(n, seed, epoch);
        prop_assert_eq!(&order, &permutation(n, seed, epoch));
        let mut sorted = order;
        sorted.sort_unstable();
        prop_assert!(sorted.into_iter().eq(0..n));
    }

    /// Seed, epoch: another one is another order (of 64 blocks, by chance once in 10^89).
    #[test]
    fn seeds_and_epochs_differ(seed in any::<u64>(), epoch in any::<u64>()) {
        let order = permutation(64, seed, epoch);
        prop_assert_ne!(&order, &permutation(64, seed ^ 1, epoch));
        prop_assert_ne!(&order, &permutation(64, seed, epoch ^ 1));
        if seed != epoch {
            prop_assert_ne!(&order, &permutation(64, epoch, seed));
        }
    }

    /// A step asked for by itself, in any order, is the step of the run from the start.
    #[test]
    fn random_access_is_the_sequence(
        n in 1usize..30, batch_size in 1usize..40, seed in any::<u64>(), shuffle in any::<bool>(),
    ) {
        let epochs = 4u64;
        let plan = BatchPlan::new(n, batch_size, seed, shuffle).unwrap();
        let steps = plan.steps_for(epochs);
        let order = |epoch| if shuffle { permutation(n, seed, epoch) } else { (0..n).collect() };
        let mut run = (0..epochs + 1 + batch_size as u64).flat_map(order);
        let sequence: Vec<Vec<usize>> =
            (0..steps).map(|_| run.by_ref().take(batch_size).collect()).collect();
        for step in (0..steps).rev() {
            prop_assert_eq!(&plan.batch(step), &sequence[step as usize]);
        }
        // Every block once an epoch.
        let seen: Vec<usize> = sequence.concat();
        for epoch in seen.chunks_exact(n) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            prop_assert!(epoch.into_iter().eq(0..n));
        }
        prop_assert!(seen.len() >= epochs as usize * n);
        prop_assert!(seen.len() < epochs as usize * n + batch_size);
    }
}
