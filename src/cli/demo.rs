//! `stratafs demo`
use super::args::DemoArgs;
use super::exit::Outcome;
/// Shows.
pub fn demo(_: DemoArgs) -> Outcome {
    Ok(())
}
