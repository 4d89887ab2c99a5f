//! Examples that cross crates; see the `examples/` folder of this package.
