//! One name over many layers: folds what each layer says, from the top down, until one says stop.
//! Lookup, removal, rename and data all ask this one resolver. Source: kernel `ovl_lookup`, `ovl_lookup_single`.

use std::ffi::{OsStr, OsString};

use smallvec::SmallVec;

use super::LayerId;
use super::redirect::Redirect;

/// What one layer says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Nothing.
    Absent,
    /// The name is hidden in the layers below, by a whiteout of any kind.
    Whiteout,
    /// A directory.
    Dir {
        /// The layers below do not show through it.
        opaque: bool,
        /// Where the layers below keep it.
        redirect: Option<Redirect>,
    },
    /// A regular file.
    File {
        /// Its data is in a layer below; with where, if under another name.
        metacopy: Option<Option<Redirect>>,
    },
    /// Anything else: symlink, device, fifo, socket.
    Other,
    /// A directory with a mark that cannot be read: which mark, and why.
    BrokenDir(&'static str, &'static str),
    /// A regular file with a mark that cannot be read: which mark, and why.
    BrokenFile(&'static str, &'static str),
}

/// Where to look in the next layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// In the parent's directory of that layer, under this name.
    Sibling(OsString),
    /// At this path from that layer's root.
    FromRoot(OsString),
}

/// What the mount's options allow to be followed.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Redirects are followed.
    pub redirect: bool,
    /// Metacopy files are followed.
    pub metacopy: bool,
    /// The stack has data-only layers. A file of the lowest layer above them may always lead there: nobody but the layers'
    /// author can have said so, and nothing but data is there.
    pub data_only: bool,
}

/// What to do after a layer was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask the next layer.
    Continue,
    /// No further layer matters.
    Stop,
}

/// Where a file's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<P> {
    /// Where its metadata is.
    Here,
    /// In a layer below.
    At(LayerId, P),
    /// At this path in a data-only layer.
    DataOnly(OsString),
}

/// What the layers together say about a name; `P` is where in a layer an object was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<P> {
    /// No such name.
    Absent,
    /// A directory, merged from these, the topmost first.
    Dir(Members<P>),
    /// Anything else.
    NonDir(LayerId, P, Data<P>),
    /// A mark cannot be followed: which, and why.
    Broken(&'static str, &'static str),
}

/// The layers that take part in a directory, topmost first.
pub type Members<P> = SmallVec<[(LayerId, P); 2]>;

/// Folds the layers' answers for one name.
#[derive(Debug)]
pub struct Resolver<P> {
    policy: Policy,
    target: Target,
    found: Found<P>,
    /// The layer that speaks next is the lowest that has names.
    lowest: bool,
}

#[derive(Debug)]
enum Found<P> {
    Nothing,
    Dir(Members<P>),
    /// A file whose data has not been found yet; the path where data-only layers may have it.
    Pending(LayerId, P, Option<OsString>),
    NonDir(LayerId, P, Data<P>),
    Broken(&'static str, &'static str),
}

impl<P> Resolver<P> {
    /// Starts with `name` in the parent's directories.
    pub fn new(policy: Policy, name: &OsStr) -> Self {
        Resolver { policy, target: Target::Sibling(name.to_owned()), found: Found::Nothing, lowest: false }
    }

    /// Where the next layer is to be asked.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Says whether the layer that is heard next is the lowest that has names.
    pub fn at_lowest(&mut self, lowest: bool) {
        self.lowest = lowest;
    }

    /// Says that the path to the object met a redirect: layers below keep the object at `path`.
    /// Errors: none here; a policy that forbids it shows in the outcome.
    pub fn redirected(&mut self, path: OsString) -> Step {
        if !self.policy.redirect {
            return self.broken("redirect", "option redirect_dir=nofollow forbids to follow it");
        }
        self.target = Target::FromRoot(path);
        Step::Continue
    }

    /// Hears what `layer` has at `place`.
    pub fn feed(&mut self, layer: LayerId, place: P, probe: Probe) -> Step {
        match probe {
            Probe::Absent => Step::Continue,
            Probe::Whiteout => Step::Stop,
            // Under an object of another kind it is hidden, and its marks with it.
            Probe::BrokenDir(..) if matches!(self.found, Found::Pending(..)) => Step::Stop,
            Probe::BrokenFile(..) if matches!(self.found, Found::Dir(_)) => Step::Stop,
            Probe::BrokenDir(mark, why) | Probe::BrokenFile(mark, why) => self.broken(mark, why),
            Probe::Dir { opaque, redirect } => self.feed_dir(layer, place, opaque, redirect),
            Probe::File { metacopy } => self.feed_file(layer, place, metacopy),
            Probe::Other => match self.found {
                Found::Nothing => {
                    self.found = Found::NonDir(layer, place, Data::Here);
                    Step::Stop
                }
                // Hidden under a directory, or not the data that a metacopy file needs.
                _ => Step::Stop,
            },
        }
    }

    fn feed_dir(&mut self, layer: LayerId, place: P, opaque: bool, redirect: Option<Redirect>) -> Step {
        match &mut self.found {
            Found::Nothing => self.found = Found::Dir(smallvec::smallvec![(layer, place)]),
            Found::Dir(members) => members.push((layer, place)),
            _ => return Step::Stop,
        }
        if opaque {
            return Step::Stop;
        }
        self.follow(redirect)
    }

    fn feed_file(&mut self, layer: LayerId, place: P, metacopy: Option<Option<Redirect>>) -> Step {
        let follows = self.policy.metacopy && self.policy.redirect;
        if let (Found::Nothing, Some(Some(Redirect::FromRoot(path)))) = (&self.found, &metacopy) {
            if !follows && self.policy.data_only && self.lowest {
                self.found = Found::Pending(layer, place, Some(path.clone()));
                return Step::Stop;
            }
        }
        if metacopy.is_some() && !self.policy.metacopy && !matches!(self.found, Found::Dir(_)) {
            return self.broken("metacopy", "option metacopy=off forbids to follow it");
        }
        let found = std::mem::replace(&mut self.found, Found::Nothing);
        match (found, metacopy) {
            (Found::Nothing, None) => {
                self.found = Found::NonDir(layer, place, Data::Here);
                Step::Stop
            }
            (Found::Nothing, Some(redirect)) => {
                let absolute = absolute_path(&redirect);
                self.found = Found::Pending(layer, place, absolute);
                self.follow(redirect)
            }
            (Found::Pending(top, top_place, _), None) => {
                self.found = Found::NonDir(top, top_place, Data::At(layer, place));
                Step::Stop
            }
            (Found::Pending(top, top_place, before), Some(redirect)) => {
                let absolute = absolute_path(&redirect).or(before);
                self.found = Found::Pending(top, top_place, absolute);
                self.follow(redirect)
            }
            (found, _) => {
                self.found = found;
                Step::Stop
            }
        }
    }

    fn follow(&mut self, redirect: Option<Redirect>) -> Step {
        let Some(redirect) = redirect else { return Step::Continue };
        if !self.policy.redirect {
            return self.broken("redirect", "option redirect_dir=nofollow forbids to follow it");
        }
        self.target = match (redirect, &self.target) {
            (Redirect::FromRoot(path), _) => Target::FromRoot(path),
            (Redirect::Sibling(name), Target::Sibling(_)) => Target::Sibling(name),
            (Redirect::Sibling(name), Target::FromRoot(path)) => {
                let mut sibling = std::path::PathBuf::from(path);
                sibling.set_file_name(name);
                Target::FromRoot(sibling.into_os_string())
            }
        };
        Step::Continue
    }

    /// Says that a mark on the way cannot be followed.
    pub fn broken(&mut self, mark: &'static str, why: &'static str) -> Step {
        self.found = Found::Broken(mark, why);
        Step::Stop
    }

    /// What the layers heard so far say together.
    pub fn finish(self) -> Outcome<P> {
        match self.found {
            Found::Nothing => Outcome::Absent,
            Found::Dir(members) => Outcome::Dir(members),
            Found::NonDir(layer, place, data) => Outcome::NonDir(layer, place, data),
            Found::Pending(layer, place, Some(path)) if self.policy.data_only => {
                Outcome::NonDir(layer, place, Data::DataOnly(path))
            }
            Found::Pending(..) => Outcome::Broken("metacopy", "no layer below has its data"),
            Found::Broken(mark, why) => Outcome::Broken(mark, why),
        }
    }
}

fn absolute_path(redirect: &Option<Redirect>) -> Option<OsString> {
    match redirect {
        Some(Redirect::FromRoot(path)) => Some(path.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Policy = Policy { redirect: true, metacopy: true, data_only: false };

    fn kinds() -> Vec<Probe> {
        vec![
            Probe::Absent,
            Probe::Whiteout,
            Probe::Dir { opaque: false, redirect: None },
            Probe::Dir { opaque: true, redirect: None },
            Probe::File { metacopy: None },
            Probe::File { metacopy: Some(None) },
            Probe::Other,
        ]
    }

    fn resolve(probes: &[Probe]) -> Outcome<usize> {
        let mut resolver = Resolver::new(ALL, OsStr::new("name"));
        for (i, probe) in probes.iter().enumerate() {
            if resolver.feed(LayerId(i as u16), i, probe.clone()) == Step::Stop {
                break;
            }
        }
        resolver.finish()
    }

    /// The obvious reading of overlayfs.rst, layer by layer, without any cleverness.
    fn obvious(probes: &[Probe]) -> Outcome<usize> {
        let visible: Vec<(usize, &Probe)> = probes
            .iter()
            .enumerate()
            .take_while(|(_, p)| **p != Probe::Whiteout)
            .filter(|(_, p)| **p != Probe::Absent)
            .collect();
        let Some(&(top, first)) = visible.first() else { return Outcome::Absent };
        match first {
            Probe::Dir { .. } => {
                let mut members = Members::new();
                for (i, probe) in visible {
                    let Probe::Dir { opaque, .. } = probe else { break };
                    members.push((LayerId(i as u16), i));
                    if *opaque {
                        break;
                    }
                }
                Outcome::Dir(members)
            }
            Probe::File { metacopy: Some(_) } => {
                let data = visible[1..].iter().find(|(_, p)| !matches!(p, Probe::File { metacopy: Some(_) }));
                match data {
                    Some((i, Probe::File { metacopy: None })) => {
                        Outcome::NonDir(LayerId(top as u16), top, Data::At(LayerId(*i as u16), *i))
                    }
                    _ => Outcome::Broken("metacopy", "no layer below has its data"),
                }
            }
            _ => Outcome::NonDir(LayerId(top as u16), top, Data::Here),
        }
    }

    #[test]
    fn every_combination_over_four_layers_agrees_with_the_obvious_fold() {
        let kinds = kinds();
        let n = kinds.len();
        for code in 0..n.pow(4) {
            let probes: Vec<Probe> = (0..4).map(|i| kinds[code / n.pow(i) % n].clone()).collect();
            assert_eq!(resolve(&probes), obvious(&probes), "{probes:?}");
        }
    }

    #[test]
    fn a_redirect_moves_the_search_of_the_layers_below() {
        let mut r = Resolver::new(ALL, OsStr::new("new"));
        let redirect = Some(Redirect::Sibling("old".into()));
        r.feed(LayerId(0), 0, Probe::Dir { opaque: false, redirect });
        assert_eq!(r.target(), &Target::Sibling("old".into()));
        r.feed(LayerId(1), 1, Probe::Dir { opaque: false, redirect: Some(Redirect::FromRoot("a/b".into())) });
        assert_eq!(r.target(), &Target::FromRoot("a/b".into()));
        r.feed(LayerId(2), 2, Probe::Dir { opaque: false, redirect: Some(Redirect::Sibling("c".into())) });
        assert_eq!(r.target(), &Target::FromRoot("a/c".into()));
    }

    #[test]
    fn what_the_options_forbid_is_an_error_and_never_wrong_bytes() {
        let policy = Policy { redirect: false, metacopy: false, data_only: false };
        let mut r = Resolver::new(policy, OsStr::new("d"));
        assert_eq!(
            r.feed(
                LayerId(0),
                0,
                Probe::Dir { opaque: false, redirect: Some(Redirect::Sibling("e".into())) }
            ),
            Step::Stop
        );
        assert!(matches!(r.finish(), Outcome::Broken("redirect", _)));
        let mut r = Resolver::new(policy, OsStr::new("f"));
        assert_eq!(r.feed(LayerId(0), 0, Probe::File { metacopy: Some(None) }), Step::Stop);
        assert!(matches!(r.finish(), Outcome::Broken("metacopy", _)));
    }

    #[test]
    fn data_only_layers_serve_absolute_redirects() {
        let meta = Probe::File { metacopy: Some(Some(Redirect::FromRoot("objects/ab".into()))) };
        let mut r = Resolver::new(Policy { data_only: true, ..ALL }, OsStr::new("f"));
        r.feed(LayerId(1), 1, meta.clone());
        assert_eq!(r.finish(), Outcome::NonDir(LayerId(1), 1, Data::DataOnly("objects/ab".into())));
        // From the lowest layer above them also where nothing else is followed.
        let strict = Policy { redirect: false, metacopy: false, data_only: true };
        let mut r = Resolver::new(strict, OsStr::new("f"));
        r.at_lowest(true);
        assert_eq!(r.feed(LayerId(1), 1, meta.clone()), Step::Stop);
        assert!(matches!(r.finish(), Outcome::NonDir(_, 1, Data::DataOnly(_))));
        let mut r = Resolver::new(strict, OsStr::new("f"));
        r.feed(LayerId(0), 0, meta);
        assert!(matches!(r.finish(), Outcome::Broken("metacopy", _)));
    }
}
