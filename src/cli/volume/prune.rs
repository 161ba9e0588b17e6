//! `stratafs volume prune`. Source: docker/cli `cli/command/volume/prune.go`; moby/moby PR 44216: anonymous ones only.

use std::io::{BufRead, Write};

use super::args::PruneArgs;
use super::filter::Filter;
use super::{all, print};
use crate::cli::exit::{Failure, Outcome, say};
use crate::volume::{Removal, Store};

/// Removes the volumes that nobody uses and nobody has named; the others only if they are asked for.
pub fn prune(store: &Store, args: &PruneArgs) -> Outcome {
    let filter = Filter::new(&args.filter, &["all", "label", "label!"])?;
    let named_too = args.all || filter.all;
    if !args.force && !args.dry_run && !confirmed(named_too)? {
        return Ok(());
    }
    let (volumes, mut outcome) = all(store)?;
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for volume in volumes {
        let meta = &volume.meta;
        let meant = (named_too || meta.is_anonymous()) && filter.takes(&volume);
        if !meant || !volume.users.is_empty() {
            continue;
        }
        // What cannot be measured is removed all the same.
        let size = store.size(&meta.name).unwrap_or(0);
        match if args.dry_run { Ok(Removal::Removed) } else { store.remove_unused(&meta.name, false) } {
            // Somebody else was quicker: it is gone, or has got a user since we looked.
            Ok(Removal::NotThere | Removal::InUse(_)) => {}
            Ok(Removal::Removed) => {
                gone.push(meta.name.clone());
                bytes += size;
            }
            Err(error) => {
                say(&error.to_string());
                outcome = Err(Failure::Said);
            }
        }
    }
    let (volumes, total) = match args.dry_run {
        false => ("Deleted Volumes:", "Total reclaimed space:"),
        true => ("Volumes that would be deleted:", "Space that would be reclaimed:"),
    };
    let mut text = String::new();
    if !gone.is_empty() {
        text = format!("{volumes}\n{}\n\n", gone.join("\n"));
    }
    print(&format!("{text}{total} {}\n", human(bytes)));
    outcome
}

fn confirmed(named_too: bool) -> Result<bool, Failure> {
    let which = if named_too { "all" } else { "anonymous" };
    print(&format!(
        "WARNING! This will remove {which} local volumes not used by at least one mount.\n\
         Are you sure you want to continue? [y/N] "
    ));
    // Nobody can answer what is not seen.
    std::io::stdout()
        .flush()
        .map_err(|error| Failure::Failed(format!("standard output: {error}: use --force")))?;
    let mut answer = String::new();
    // Who says nothing has not said yes.
    let _ = std::io::stdin().lock().read_line(&mut answer);
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// Bytes with four significant digits. Source: docker/go-units `HumanSize`, `%.4g`.
fn human(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = if value < 10.0 {
        3
    } else if value < 100.0 {
        2
    } else if value < 1000.0 {
        1
    } else {
        0
    };
    let text = format!("{value:.whole$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_234_567, "1.235MB"),
            (12_340, "12.34kB"),
            (999_900, "999.9kB"),
            (1_200_000, "1.2MB"),
            (5_000_000_000, "5GB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
