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
fn every_epoch_has_its_own_order() {
    let plan = BatchPlan::new(5, 2, 3, true).unwrap();
    let (first, second) = (permutation(5, 3, 0), permutation(5, 3, 1));
    assert_ne!(first, second);
    assert_eq!(plan.batch(0), first[..2]);
    assert_eq!(plan.batch(2), first[4..]);
    assert_eq!(plan.batch(3), second[..2]);
    assert_eq!((plan.batch_size(), plan.accumulation()), (2, 1));
}

#[test]
fn an_epoch_ends_with_what_is_left() {
    let plan = |batch_size, accumulation| {
        BatchPlan::new(5, batch_size, 0, false)
            .unwrap()
            .with_accumulation(accumulation)
    };
    let batches =
        |plan: &BatchPlan, n: u64| (0..n).map(|number| plan.batch(number)).collect::<Vec<_>>();
    let epoch = [vec![0, 1], vec![2, 3], vec![4]];
    assert_eq!(
        batches(&plan(2, 1), 6),
        [epoch.clone(), epoch.clone()].concat()
    );
    // A step does not go on in the next epoch: what it has no blocks for is empty.
    let step = [&epoch[..], &[Vec::new()]].concat();
    assert_eq!(batches(&plan(2, 4), 8), [step.clone(), step].concat());
    // Fewer blocks than a batch: all of them, once.
    assert_eq!(batches(&plan(9, 1), 2), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]);
    let steps = |batch_size, accumulation, epochs| plan(batch_size, accumulation).steps_for(epochs);
    assert_eq!(
        [
            steps(2, 1, 1.0),
            steps(2, 1, 2.0),
            steps(2, 1, 1.4),
            steps(2, 1, 0.01)
        ],
        [3, 6, 4, 1]
    );
    assert_eq!(
        [steps(2, 8, 3.0), steps(8, 8, 2.0), steps(2, 2, 1.0)],
        [3, 2, 2]
    );
    let plan = plan(2, 2);
    let before: Vec<f64> = (0..5).map(|number| plan.epochs_before(number)).collect();
    assert_eq!(before, [0.0, 0.4, 0.8, 1.0, 1.0]);
}

#[test]
fn the_last_batch_there_is_can_be_asked_for() {
    for (batch_size, accumulation) in [
        (4, 1),
        (usize::MAX, 1),
        (1, usize::MAX),
        (usize::MAX, usize::MAX),
    ] {
        let plan = BatchPlan::new(3, batch_size, 0, true).unwrap();
        let plan = plan.with_accumulation(accumulation);
        assert!(plan.batch(u64::MAX).len() <= 3);
        assert_eq!(plan.batch(0).len(), batch_size.min(3));
        assert_eq!(plan.steps_for(1.0), 1);
        assert_eq!(plan.steps_for(f64::MAX), u64::MAX);
    }
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

    /// A batch asked for by itself, in any order, is that of the run from the start; and an epoch has every block once.
    #[test]
    fn random_access_is_the_sequence(
        n in 1usize..30, batch_size in 1usize..40, accumulation in 1usize..5,
        seed in any::<u64>(), shuffle in any::<bool>(),
    ) {
        let plan = BatchPlan::new(n, batch_size, seed, shuffle).unwrap().with_accumulation(accumulation);
        let order = |epoch| if shuffle { permutation(n, seed, epoch) } else { (0..n).collect() };
        let in_step = batch_size * accumulation;
        let steps = (0..3).flat_map(|epoch| {
            let order = order(epoch);
            order.chunks(in_step).map(<[usize]>::to_vec).collect::<Vec<_>>()
        });
        let steps: Vec<Vec<usize>> = steps.collect();
        prop_assert_eq!(plan.steps_for(3.0), steps.len() as u64);
        prop_assert_eq!(plan.steps_in_epoch() * 3, steps.len() as u64);
        for (step, blocks) in steps.iter().enumerate().rev() {
            let step = step as u64;
            let numbers = step * accumulation as u64..(step + 1) * accumulation as u64;
            let batches: Vec<Vec<usize>> = numbers.clone().map(|number| plan.batch(number)).collect();
            prop_assert_eq!(&batches.concat(), blocks);
            let expected = blocks.chunks(batch_size).map(<[usize]>::len);
            prop_assert!(numbers.map(|number| plan.batch_len(number)).filter(|len| *len > 0).eq(expected));
            let before = plan.epochs_before((step + 1) * accumulation as u64);
            let seen: usize = steps[..=step as usize].iter().map(Vec::len).sum();
            prop_assert!((before - seen as f64 / n as f64).abs() < 1e-9);
        }
    }
}
