//! The command of operators, and the composition root of the demo.
