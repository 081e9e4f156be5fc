//! What the demo shows: each claim as it is proved, with its time, and a table at the end.

use crate::output;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where the demo speaks. Whatever is said here was verified before it is said.
#[derive(Debug)]
pub struct Console {
    start: Instant,
    loud: bool,
    colours: bool,
    steps: u32,
    measured: Vec<[String; 2]>,
}

impl Console {
    /// Speaks to standard output.
    #[must_use]
    pub fn loud() -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Console { start: Instant::now(), loud: true, colours, steps: 0, measured: Vec::new() }
    }

    /// Speaks to nobody, for tests.
    #[must_use]
    pub fn silent() -> Self {
        Console { start: Instant::now(), loud: false, colours: false, steps: 0, measured: Vec::new() }
    }

    /// How long the demo has been running.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Begins a step.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        let text = self.paint("1", &format!("{:>2}  {title}", self.steps));
        self.print(&format!("\n{text}"));
    }

    /// Says what is going on.
    pub fn note(&mut self, text: &str) {
        let text = self.paint("2", text);
        self.print(&format!("      {text}"));
    }

    /// Says that a claim was proved.
    pub fn proved(&mut self, claim: &str) {
        let tick = self.paint("32", "ok");
        let at = self.paint("2", &format!("[{:5.1} s]", self.start.elapsed().as_secs_f64()));
        self.print(&format!("  {tick}  {claim}  {at}"));
    }

    /// Says that a claim was proved, and how long it took; the time is in the last table.
    pub fn timed(&mut self, claim: &str, measure: &str, took: Duration) {
        self.proved(&format!("{claim}: {}", span(took)));
        self.measured.push([measure.to_owned(), span(took)]);
    }

    /// Puts a number into the last table.
    pub fn measure(&mut self, measure: &str, value: impl ToString) {
        self.measured.push([measure.to_owned(), value.to_string()]);
    }

    /// Prints the table of everything that was measured.
    pub fn summary(&mut self) {
        let total = span(self.start.elapsed());
        self.measure("the whole demo", total);
        let table = output::table(["measured", "value"], self.measured.clone());
        self.print(&format!("\n{table}"));
    }

    /// Prints a text as it is.
    pub fn print(&self, text: &str) {
        if self.loud {
            let mut out = io::stdout().lock();
            // A closed pipe is no failure of what was shown.
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A time, in the unit that suits it.
#[must_use]
pub fn span(time: Duration) -> String {
    if time < Duration::from_millis(1) {
        format!("{} us", time.as_micros())
    } else if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
