//! What figures are held against.

/// One mark of the run.
pub(crate) struct Mark {
    what: String,
    holds: bool,
}

impl Mark {
    /// A figure that may be at most so much.
    pub(crate) fn at_most(what: &str, figure: f64, most: f64) -> Self {
        Self::new(
            format!("{what} at most {most}: {figure:.2}"),
            figure <= most,
        )
    }

    pub(crate) fn new(what: String, holds: bool) -> Self {
        Self { what, holds }
    }

    /// Nothing was answered otherwise than it should be.
    pub(crate) fn no_errors(what: &str, errors: usize) -> Self {
        Self::new(format!("{what}, no errors: {errors}"), errors == 0)
    }
}

/// Prints all marks, and says whether one was missed.
pub(crate) fn any_missed(marks: &[Mark]) -> bool {
    println!();
    for mark in marks {
        let word = if mark.holds { "holds " } else { "MISSED" };
        println!("{word} {}", mark.what);
    }
    marks.iter().any(|mark| !mark.holds)
}
