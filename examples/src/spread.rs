//! A figure that was measured several times.

use std::fmt;

use serde_json::{Value, json};

/// A figure for the last line, to so many digits behind the point.
#[must_use]
pub fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    json!((value * scale).round() / scale)
}

/// Repeated measurements of one figure.
#[derive(Debug, Clone, Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// The middle value; the mean of the two in the middle for an even count; NaN without measurements.
    ///
    /// ```
    /// use volley_examples::Spread;
    /// assert_eq!([3.0, 1.0, 2.0].into_iter().collect::<Spread>().median(), 2.0);
    /// ```
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count => f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]),
        }
    }

    /// Adds a measurement.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// This over another figure, measurement by measurement in the order they were made.
    ///
    /// ```
    /// use volley_examples::Spread;
    /// let figure = |values: [f64; 2]| values.into_iter().collect::<Spread>();
    /// assert_eq!(figure([6.0, 10.0]).over(&figure([2.0, 5.0])).values(), [3.0, 2.0]);
    /// ```
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        self.0.iter().zip(&other.0).map(|(this, other)| this / other).collect()
    }

    /// The measurements, in the order they were made.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// The median, and the least and greatest value in brackets.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(0);
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let text = format!("{:.precision$} [{least:.precision$} .. {greatest:.precision$}]", self.median());
        f.write_str(&text)
    }
}
