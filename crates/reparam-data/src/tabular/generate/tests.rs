use super::*;
use crate::tabular::split_rows;

const COEFFICIENTS: [f64; 3] = [
    74.489_123_366_730_01,
    1.360_471_540_144_259,
    3.301_921_615_178_982,
];
const X: [f64; 15] = [
    0.812_560_265_090_536_5,
    2.594_044_746_620_693,
    -0.153_277_074_052_532_4,
    0.266_457_240_699_056_24,
    0.358_082_806_929_481_8,
    -0.086_956_455_698_318_64,
    -1.527_147_776_594_081_7,
    -0.560_359_124_474_815_1,
    0.705_257_370_610_776_4,
    -0.150_805_884_171_885_04,
    -0.968_716_693_877_567_6,
    -0.917_545_756_146_744_6,
    0.825_832_648_584_455_7,
    0.132_685_531_679_092_28,
    1.694_896_453_218_880_8,
];
const Y: [f64; 5] = [
    63.537_799_493_874_78,
    19.718_963_417_457_38,
    -112.562_256_617_678_36,
    -16.218_153_707_523_637,
    66.397_066_914_484_94,
];

fn problem(samples: usize, features: usize, noise: f64, seed: u64) -> Generate {
    Generate {
        samples,
        features,
        noise,
        seed,
    }
}

#[test]
fn the_problem_is_frozen() {
    // From an implementation of the documented algorithm in another language.
    let generated = generate(&problem(5, 3, 0.5, 42)).unwrap();
    let table = generated.table;
    assert_eq!(generated.coefficients, COEFFICIENTS);
    for (found, expected) in table.x.iter().zip(X) {
        assert!((found - expected).abs() < 1e-14, "{found} {expected}");
    }
    for (found, expected) in table.y.iter().zip(Y) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
    assert_eq!((table.x.len(), table.y.len(), table.n_rows), (15, 5, 5));
    assert_eq!(table.features, ["x1", "x2", "x3"]);
    assert_eq!(table.target, "y");
    assert_eq!(table.rows, [0, 1, 2, 3, 4]);
    assert_eq!((table.dropped, table.digest), (vec![], None));
}

#[test]
fn without_noise_the_target_is_the_linear_function() {
    let Generated {
        table,
        coefficients,
    } = generate(&problem(50, 4, 0.0, 1)).unwrap();
    for (row, y) in table.x.chunks_exact(4).zip(&table.y) {
        let expected: f64 = row.iter().zip(&coefficients).map(|(x, w)| x * w).sum();
        assert_eq!(*y, expected);
    }
}

#[test]
fn parts_do_not_change_each_other() {
    let small = generate(&problem(10, 3, 1.0, 9)).unwrap();
    let large = generate(&problem(20, 3, 0.0, 9)).unwrap();
    assert_eq!(small.table.x, large.table.x[..30]);
    assert_eq!(small.coefficients, large.coefficients);
    let noise = small.table.y.iter().zip(&large.table.y);
    assert!(noise.clone().all(|(noisy, clean)| noisy != clean));
    let other = generate(&problem(10, 3, 1.0, 10)).unwrap();
    assert_ne!(small.coefficients, other.coefficients);
    assert_ne!(small.table.x, other.table.x);
}

#[test]
fn features_and_noise_are_standard_normal() {
    // 40_000 numbers each. Standard errors: 1/sqrt(n) of the mean, sqrt(2/n) of the variance, sqrt(15/n) and
    // sqrt(96/n) of the third and fourth moments; five of them.
    let quiet = generate(&problem(40_000, 1, 0.0, 3)).unwrap();
    let noisy = generate(&problem(40_000, 1, 1.0, 3)).unwrap();
    let noise = noisy.table.y.iter().zip(&quiet.table.y);
    let noise: Vec<f64> = noise.map(|(noisy, quiet)| noisy - quiet).collect();
    for numbers in [&quiet.table.x, &noise] {
        let n = numbers.len() as f64;
        let moment = |power| numbers.iter().map(|x| x.powi(power)).sum::<f64>() / n;
        let bound = |variance: f64| 5.0 * (variance / n).sqrt();
        assert!(moment(1).abs() < bound(1.0));
        assert!((moment(2) - 1.0).abs() < bound(2.0));
        assert!(moment(3).abs() < bound(15.0));
        assert!((moment(4) - 3.0).abs() < bound(96.0));
    }
    // Features and noise come from different streams: their correlation is no more than chance.
    let product = quiet.table.x.iter().zip(&noise).map(|(x, e)| x * e);
    assert!((product.sum::<f64>() / 40_000.0).abs() < 5.0 / 200.0);
}

#[test]
fn coefficients_are_uniform_to_100() {
    let coefficients = generate(&problem(2, 20_000, 0.0, 4)).unwrap().coefficients;
    assert!(coefficients.iter().all(|w| (0.0..100.0).contains(w)));
    let mean = coefficients.iter().sum::<f64>() / 20_000.0;
    let squares = coefficients.iter().map(|w| w * w).sum::<f64>() / 20_000.0;
    // Standard deviations of w and w^2: 100/sqrt(12) = 28.9 and 10^4 * sqrt(4/45) = 2981; five standard errors.
    assert!((mean - 50.0).abs() < 5.0 * 28.9 / 141.0);
    assert!((squares - 10_000.0 / 3.0).abs() < 5.0 * 2981.0 / 141.0);
}

#[test]
fn requests_are_checked() {
    let message = |problem| {
        let error = generate(&problem).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    };
    assert_eq!(
        message(problem(1, 3, 0.0, 0)),
        (
            "cannot generate 1 samples: at least 2 are needed".to_owned(),
            "set samples to 2 or more".to_owned()
        )
    );
    assert_eq!(
        message(problem(5, 0, 0.0, 0)),
        (
            "cannot generate a problem with no features".to_owned(),
            "set features to 1 or more".to_owned()
        )
    );
    for noise in [-0.1, f64::NAN, f64::INFINITY, 1e308] {
        assert_eq!(
            message(problem(50, 1, noise, 0)).0,
            format!(
                "the noise is {noise:?}, expected a standard deviation: a finite number from 0 upwards"
            )
        );
    }
    let limit = "100001 samples of 1000 features are more than 100000000 numbers";
    assert_eq!(message(problem(100_001, 1000, 0.0, 0)).0, limit);
    // The product of the two does not wrap round to a small number.
    assert!(matches!(
        generate(&problem(usize::MAX, 2, 0.0, 0)),
        Err(TabularError::TooLarge { .. })
    ));
}

#[test]
fn the_split_of_the_same_seed_is_another_stream() {
    // Were both drawn from the same words, the rows held out would depend on their features.
    let table = generate(&problem(2000, 1, 0.0, 11)).unwrap().table;
    let split = split_rows(2000, 0.5, 11).unwrap();
    let mean = split.test.iter().map(|row| table.x[*row]).sum::<f64>() / 1000.0;
    assert!(mean.abs() < 5.0 / 1000f64.sqrt());
}
