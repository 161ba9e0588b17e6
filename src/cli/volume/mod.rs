//! `stratafs volume`: Docker's commands for volumes, over a store.

mod archive;
pub mod args;
mod filter;
mod inspect;
mod list;
mod prune;
mod template;

use std::collections::BTreeMap;
use std::io::Write;

use args::{CreateArgs, RemoveArgs, VolumeArgs, VolumeCommand};

use super::exit::{Failure, Outcome, say};
use crate::config::helpers::Helpers;
use crate::volume::{Store, Volume};

/// Does what the arguments say.
pub fn volume(args: VolumeArgs) -> Outcome {
    let store = match args.state {
        Some(state) if state.as_os_str().is_empty() => {
            return Err(Failure::Usage("--state: a directory is missing: name one".to_owned()));
        }
        Some(state) => Store::open(&state)?,
        None => Store::open(&Store::default_dir()?)?,
    };
    match args.command {
        VolumeCommand::Create(args) => create(&store, args),
        VolumeCommand::Ls(args) => list::list(&store, &args),
        VolumeCommand::Inspect(args) => inspect::inspect(&store, &args),
        VolumeCommand::Rm(args) => remove(&store, &args),
        VolumeCommand::Prune(args) => prune::prune(&store, &args),
        VolumeCommand::Export(args) => archive::export(&allow(store, &args.allow_helper)?, &args),
        VolumeCommand::Import(args) => archive::import(&allow(store, &args.allow_helper)?, &args),
    }
}

fn allow(store: Store, helpers: &[String]) -> Result<Store, Failure> {
    Ok(store.allow(Helpers::given(helpers).map_err(Failure::usage)?))
}

fn create(store: &Store, args: CreateArgs) -> Outcome {
    let mut options = BTreeMap::new();
    for option in &args.opt {
        let pair = option.split_once('=').filter(|(key, _)| !key.is_empty());
        let Some((key, value)) = pair else {
            return Err(Failure::Usage(format!("-o {option}: no value: write `-o KEY=VALUE`")));
        };
        options.insert(key.to_owned(), value.to_owned());
    }
    let mut labels = BTreeMap::new();
    for label in &args.label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        if key.is_empty() {
            return Err(Failure::Usage(format!("--label {label}: no key: write `--label KEY=VALUE`")));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    // An empty name is none, as in Docker.
    let name = args.name.or(args.name_option).filter(|name| !name.is_empty());
    let (meta, _) = store.create(name.as_deref(), Some(&args.driver), &options, &labels)?;
    print(&format!("{}\n", meta.name));
    Ok(())
}

fn remove(store: &Store, args: &RemoveArgs) -> Outcome {
    let mut outcome = Ok(());
    for name in &args.volumes {
        match store.remove(name, args.force) {
            Ok(()) => print(&format!("{name}\n")),
            Err(error) => {
                say(&error.to_string());
                outcome = Err(Failure::Said);
            }
        }
    }
    outcome
}

/// All volumes but the broken ones, which are told about; `Said` then stands beside them.
fn all(store: &Store) -> Result<(Vec<Volume>, Outcome), Failure> {
    let (mut volumes, mut outcome) = (Vec::new(), Ok(()));
    for name in store.names()? {
        match store.get(&name) {
            Ok(volume) => volumes.extend(volume),
            Err(error) => {
                say(&error.to_string());
                outcome = Err(Failure::Said);
            }
        }
    }
    volumes.sort_by(|a, b| list::natural(&a.meta.name, &b.meta.name));
    Ok((volumes, outcome))
}

fn print(text: &str) {
    // A reader such as `head` may have seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
