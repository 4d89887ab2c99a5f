//! Several models asked the same question: the mean of their answers, and how far they disagree.
//!
//! The spread of independently trained members is a usable measure of a model's uncertainty (Lakshminarayanan et al.,
//! "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", 2017).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::outputs::Outputs;
use crate::session::BatchOutputs;
use crate::tensor::{DataType, TensorSpec};

/// What follows an output's name in the name of its standard deviation.
const SUFFIX: &str = "_uncertainty";

/// How the answers of an ensemble's members become one.
///
/// The outputs are those of a member, with the mean over the members, and after them one more for each, named
/// `<output>_uncertainty`, of the same type and shape, with the standard deviation over the members: the root of the mean
/// squared distance from the mean. Of a single member it is NaN: one opinion does not tell how far others differ.
///
/// # Examples
/// ```no_run
/// use std::num::NonZeroUsize;
/// use std::path::Path;
/// use volley_gpu_runtime::{Ensemble, Library, Model, ModelOptions, Repository, Session};
///
/// let library = Library::load(None)?;
/// let repository = Repository::open(Path::new("models/repository"))?;
/// let version = repository.models[0].latest();
/// let models = (version.variants.iter().filter(|variant| variant.name.starts_with("int8")))
///     .map(|variant| Model::load(&library, version, variant, ModelOptions::default()))
///     .collect::<Result<Vec<_>, _>>()?;
/// let mut sessions = models.iter().map(Model::open_session).collect::<Result<Vec<Session>, _>>()?;
///
/// let ensemble = Ensemble::of(models.iter().map(|model| &**model.outputs()))?;
/// let window = vec![0u8; models[0].inputs()[0].row_bytes()];
/// let mut opinions = ensemble.hear(1);
/// for session in &mut sessions {
///     session.write(0, 0, [&window[..]]);
///     opinions.add(&session.run(1)?);
/// }
/// let answer = opinions.rows(0..1);
/// let uncertainty = ensemble.outputs().iter().position(|spec| spec.name == "prediction_uncertainty");
/// println!("{:?}", uncertainty.map(|index| answer.tensor(index)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ensemble {
    outputs: Arc<[TensorSpec]>,
    /// How many of `outputs` are means; as many standard deviations follow.
    means: usize,
    row_elements: usize,
}

impl Ensemble {
    /// The ensemble of members with these outputs.
    ///
    /// # Errors
    /// [`EnsembleError`] when there is no member, two members' outputs differ in name, type or shape, one is not binary32,
    /// or one has the name that another's standard deviation gets.
    pub fn of<'a>(members: impl IntoIterator<Item = &'a [TensorSpec]>) -> Result<Self, EnsembleError> {
        let mut members = members.into_iter();
        let first = members.next().ok_or(EnsembleError::Empty)?;
        if let Some(spec) = first.iter().find(|spec| spec.dtype != DataType::Fp32) {
            return Err(EnsembleError::NotFp32(spec.clone()));
        }
        for (index, other) in members.enumerate() {
            if other != first {
                let (expected, found) = (first.to_vec(), other.to_vec());
                return Err(EnsembleError::Different { member: index + 1, expected, found });
            }
        }
        let taken = |spec: &&TensorSpec| first.iter().any(|other| other.name == spec.name.clone() + SUFFIX);
        if let Some(spec) = first.iter().find(taken) {
            return Err(EnsembleError::NameTaken { output: spec.name.clone() });
        }
        let deviations = first.iter().map(|spec| TensorSpec { name: spec.name.clone() + SUFFIX, ..spec.clone() });
        Ok(Self {
            outputs: first.iter().cloned().chain(deviations).collect(),
            means: first.len(),
            row_elements: first.iter().map(TensorSpec::row_elements).sum(),
        })
    }

    /// The means, in the members' order of outputs, then the standard deviations in the same order.
    #[must_use]
    pub fn outputs(&self) -> &Arc<[TensorSpec]> {
        &self.outputs
    }

    /// How many of [`outputs`](Self::outputs) are means.
    #[must_use]
    pub fn means(&self) -> usize {
        self.means
    }

    /// Begins a batch of `rows` rows.
    #[must_use]
    pub fn hear(&self, rows: usize) -> Opinions<'_> {
        Opinions { ensemble: self, rows, members: 0, moments: vec![Moments::default(); rows * self.row_elements] }
    }
}

/// The mean so far, and the sum of squared distances from it (Welford, "Note on a Method for Calculating Corrected Sums
/// of Squares and Products", 1962).
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    mean: f64,
    squares: f64,
}

/// What the members said of one batch.
#[derive(Debug)]
pub struct Opinions<'a> {
    ensemble: &'a Ensemble,
    rows: usize,
    members: u32,
    /// Of each output, all rows.
    moments: Vec<Moments>,
}

impl Opinions<'_> {
    /// Takes in what one more member answered to the batch.
    ///
    /// # Panics
    /// If the member's outputs are not those of the ensemble, or it ran fewer rows.
    pub fn add(&mut self, batch: &BatchOutputs<'_>) {
        self.add_tensors(|output| batch.tensor(output));
    }

    fn add_tensors<'t>(&mut self, tensor: impl Fn(usize) -> &'t [u8]) {
        self.members += 1;
        let count = f64::from(self.members);
        let mut moments = &mut self.moments[..];
        for (index, spec) in self.ensemble.outputs[..self.ensemble.means].iter().enumerate() {
            let of_this;
            (of_this, moments) = moments.split_at_mut(self.rows * spec.row_elements());
            let bytes = &tensor(index)[..self.rows * spec.row_bytes()];
            for (Moments { mean, squares }, value) in of_this.iter_mut().zip(bytes.chunks_exact(4)) {
                let value = f64::from(f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
                let distance = value - *mean;
                *mean += distance / count;
                *squares += distance * (value - *mean);
            }
        }
    }

    /// How many members were heard.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members as usize
    }

    /// The outputs of the rows `rows`: means, then standard deviations.
    ///
    /// # Panics
    /// If no member was heard, or the range reaches past the batch.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Outputs {
        assert!(self.members > 0, "no member was heard");
        let specs = &self.ensemble.outputs;
        let mut bytes = Vec::with_capacity(2 * rows.len() * self.ensemble.row_elements * size_of::<f32>());
        let mean = |moments: &Moments| moments.mean as f32;
        let deviation = |moments: &Moments| match self.members {
            1 => f32::NAN,
            members => (moments.squares / f64::from(members)).sqrt() as f32,
        };
        for of_interest in [&mean as &dyn Fn(&Moments) -> f32, &deviation] {
            let mut moments = &self.moments[..];
            for spec in &specs[..self.ensemble.means] {
                let of_this;
                (of_this, moments) = moments.split_at(self.rows * spec.row_elements());
                let wanted = &of_this[rows.start * spec.row_elements()..rows.end * spec.row_elements()];
                bytes.extend(wanted.iter().flat_map(|moments| of_interest(moments).to_le_bytes()));
            }
        }
        Outputs::from_joined(bytes.into(), specs, rows.len()).expect("as many bytes as the specs say")
    }
}

/// Why variants cannot be members of one ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnsembleError {
    /// There is no member.
    Empty,
    /// An output has no mean.
    NotFp32(TensorSpec),
    /// The members have an output with the name of another's standard deviation.
    NameTaken {
        /// That other output.
        output: String,
    },
    /// A member answers otherwise than the first.
    Different {
        /// Which member, counted from 0.
        member: usize,
        /// The first member's outputs.
        expected: Vec<TensorSpec>,
        /// This member's.
        found: Vec<TensorSpec>,
    },
}

impl fmt::Display for EnsembleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |specs: &[TensorSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        match self {
            Self::Empty => f.write_str("an ensemble needs at least one member"),
            Self::NotFp32(spec) => write!(f, "the output `{spec}` is not FP32; only of FP32 is there a mean"),
            Self::NameTaken { output } => {
                write!(
                    f,
                    "`{output}{SUFFIX}` is an output of the members; expected that name for how they differ in `{output}`"
                )
            }
            Self::Different { member, expected, found } => write!(
                f,
                "member {member} has other outputs than the first: {}; expected {}",
                list(found),
                list(expected)
            ),
        }
    }
}

impl std::error::Error for EnsembleError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(name: &str, row_shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype: DataType::Fp32, row_shape: row_shape.to_vec() }
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn values(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// `members[m][output]` are the values of all rows.
    fn opinions<'a>(ensemble: &'a Ensemble, rows: usize, members: &[Vec<Vec<f32>>]) -> Opinions<'a> {
        let mut opinions = ensemble.hear(rows);
        for member in members {
            let tensors: Vec<Vec<u8>> = member.iter().map(|values| bytes(values)).collect();
            opinions.add_tensors(|output| &tensors[output]);
        }
        opinions
    }

    #[test]
    fn the_answer_is_the_mean_and_the_root_of_the_mean_squared_distance() {
        let specs = [spec("a", &[2]), spec("b", &[])];
        let ensemble = Ensemble::of([&specs[..], &specs[..], &specs[..]]).expect("they agree");
        let names: Vec<&str> = ensemble.outputs().iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "a_uncertainty", "b_uncertainty"]);
        let members = [
            vec![vec![0.0, 1.0, 2.0, 3.0], vec![10.0, 20.0]],
            vec![vec![3.0, 1.0, 2.0, 3.0], vec![10.0, 26.0]],
            vec![vec![6.0, 1.0, 2.0, 3.0], vec![10.0, 32.0]],
        ];
        let opinions = opinions(&ensemble, 2, &members);
        assert_eq!(opinions.members(), 3);
        let (first, second) = (opinions.rows(0..1), opinions.rows(1..2));
        assert_eq!(values(&first.tensor(0)), [3.0, 1.0]);
        assert_eq!(values(&first.tensor(2)), [6.0_f32.sqrt(), 0.0]);
        assert_eq!(values(&second.tensor(0)), [2.0, 3.0]);
        assert_eq!(values(&second.tensor(1)), [26.0]);
        assert_eq!(values(&second.tensor(3)), [24.0_f32.sqrt()]);
    }

    #[test]
    fn one_member_left_answers_without_an_uncertainty() {
        let specs = [spec("a", &[1])];
        let ensemble = Ensemble::of([&specs[..]]).expect("one is enough");
        let answer = opinions(&ensemble, 1, &[vec![vec![7.0]]]).rows(0..1);
        assert_eq!(values(&answer.tensor(0)), [7.0]);
        assert!(values(&answer.tensor(1))[0].is_nan());
    }

    #[test]
    fn members_that_answer_otherwise_are_refused_with_both_sides() {
        let (a, b) = ([spec("a", &[2])], [spec("a", &[3])]);
        let text = Ensemble::of([&a[..], &b[..]]).expect_err("they differ").to_string();
        assert_eq!(text, "member 1 has other outputs than the first: a FP32[N,3]; expected a FP32[N,2]");
        let integers = [TensorSpec { dtype: DataType::Int64, ..spec("n", &[]) }];
        assert!(Ensemble::of([&integers[..]]).expect_err("no mean").to_string().contains("n INT64[N]"));
        assert_eq!(Ensemble::of([]).expect_err("nobody"), EnsembleError::Empty);
        let taken = [spec("a", &[]), spec("a_uncertainty", &[])];
        let text = Ensemble::of([&taken[..]]).expect_err("which is it?").to_string();
        assert_eq!(text, "`a_uncertainty` is an output of the members; expected that name for how they differ in `a`");
    }

    proptest! {
        #[test]
        fn a_row_gets_the_same_bits_whatever_its_batch(
            rows in prop::collection::vec(prop::array::uniform3(-1e6_f32..1e6), 1..8),
            at in any::<prop::sample::Index>(),
        ) {
            let specs = [spec("a", &[])];
            let ensemble = Ensemble::of([&specs[..], &specs[..], &specs[..]]).expect("they agree");
            let member = |rows: &[[f32; 3]], m: usize| vec![rows.iter().map(|row| row[m]).collect::<Vec<_>>()];
            let answers = |rows: &[[f32; 3]]| {
                opinions(&ensemble, rows.len(), &[member(rows, 0), member(rows, 1), member(rows, 2)])
            };
            let at = at.index(rows.len());
            let together = answers(&rows).rows(at..at + 1).to_joined();
            let alone = answers(&rows[at..=at]).rows(0..1).to_joined();
            prop_assert_eq!(together, alone);
        }
    }
}
