//! A YAML document as a tree with no more than its author wrote: anchors and merge keys resolved, numbers as text.
//!
//! Aliases may stand for aliases, so a short text can mean a tree larger than the memory; [`NODES`] is the limit.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::shown::shown;

/// The most nodes of a tree, aliases counted as often as they stand there.
const NODES: usize = 100_000;

/// How deep values may stand within values. Reading takes time with the square of it.
const DEEPEST: usize = 100;

/// At most how deep the values of `text` stand within one another in one line, or between brackets: counted before it is read. Within
/// quotes they are counted, too, which no honest file comes to.
fn depth(text: &str) -> usize {
    let brackets = text.bytes().scan(0usize, |open, byte| {
        match byte {
            b'[' | b'{' => *open += 1,
            b']' | b'}' => *open = open.saturating_sub(1),
            _ => {}
        }
        Some(*open)
    });
    let marks = |line: &str| {
        let is_mark = |word: &&str| matches!(*word, "-" | "?" | ":");
        line.split_ascii_whitespace().take_while(is_mark).count()
    };
    brackets.max().unwrap_or(0).max(text.lines().map(marks).max().unwrap_or(0))
}

/// One node of a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    /// In decimal.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In order; no key stands there twice.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// What kind of thing it is, for a sentence.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "empty",
            Node::Bool(_) => "true or false",
            Node::Number(_) => "a number",
            Node::Text(_) => "text",
            Node::List(_) => "a list",
            Node::Map(_) => "a mapping",
        }
    }

    /// The value of `key`; nothing if this is no mapping, or the key is absent or empty.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Node::Map(entries) = self else { return None };
        entries.iter().find(|(other, node)| other == key && *node != Node::Null).map(|(_, node)| node)
    }
}

/// The tree of the one document in `text`. The reason why not is a sentence.
pub(super) fn read(text: &str) -> Result<Node, String> {
    if depth(text) > DEEPEST {
        return Err(format!("it has values within values more than {DEEPEST} deep: write it flatter"));
    }
    let left = Cell::new(NODES);
    let mut found = Node::Null;
    for document in yaml_serde::Deserializer::from_str(text) {
        let node = Tree(&left).deserialize(document).map_err(|error| match left.get() {
            0 => format!("it means more than {NODES} values: take out aliases of aliases"),
            _ => format!("{}: correct the YAML there", shown(error.to_string().as_bytes())),
        })?;
        if found != Node::Null && node != Node::Null {
            return Err(
                "it holds several documents: keep one, or put the others in files of their own".to_owned()
            );
        }
        if node != Node::Null {
            found = node;
        }
    }
    Ok(found)
}

/// Reads a node, with so many left.
#[derive(Clone, Copy)]
struct Tree<'a>(&'a Cell<usize>);

impl Tree<'_> {
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        if left > 1 { Ok(()) } else { Err(E::custom("too many nodes")) }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        self.count()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    /// A document without a value.
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element_seed(self)? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged = Vec::new();
        // A set beside the list, since a large mapping would be searched for each of its keys.
        let mut keys = std::collections::BTreeSet::new();
        while let Some(key) = map.next_key_seed(self)? {
            let node = map.next_value_seed(self)?;
            let key = match key {
                Node::Text(text) | Node::Number(text) => text,
                Node::Bool(value) => value.to_string(),
                other => return Err(A::Error::custom(format!("a key of a mapping is {}", other.kind()))),
            };
            if key == "<<" {
                merged.push(node);
            } else if keys.insert(key.clone()) {
                entries.push((key, node));
            } else {
                return Err(A::Error::custom(format!("the key `{key}` stands there twice")));
            }
        }
        for node in merged {
            let maps = match node {
                Node::List(maps) => maps,
                map => vec![map],
            };
            for map in maps {
                let Node::Map(more) = map else {
                    return Err(A::Error::custom(format!(
                        "`<<` merges mappings, and this is {}",
                        map.kind()
                    )));
                };
                entries.extend(more.into_iter().filter(|(key, _)| keys.insert(key.clone())));
            }
        }
        Ok(Node::Map(entries))
    }

    /// A tag. Of compose's own, `!reset` takes away what it stands before; the others keep it.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Node, A::Error> {
        let (tag, content) = data.variant::<String>()?;
        let node = content.newtype_variant_seed(self)?;
        Ok(if tag.trim_start_matches('!') == "reset" { Node::Null } else { node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::Text(text.to_owned())
    }

    fn map(entries: &[(&str, Node)]) -> Node {
        Node::Map(entries.iter().map(|(key, node)| (key.to_string(), node.clone())).collect())
    }

    #[test]
    fn values_keep_their_kind() {
        for (yaml, expected) in [
            ("", Node::Null),
            ("# only a comment\n", Node::Null),
            ("---\n---\na", text("a")),
            ("true", Node::Bool(true)),
            ("yes", text("yes")),
            ("12", Node::Number("12".to_owned())),
            ("3.8", Node::Number("3.8".to_owned())),
            ("-1", Node::Number("-1".to_owned())),
            ("0o1777", Node::Number("1023".to_owned())),
            ("01777", text("01777")),
            ("'3'", text("3")),
            ("[a, 1]", Node::List(vec![text("a"), Node::Number("1".to_owned())])),
            ("{1: a}", map(&[("1", text("a"))])),
            ("!override [a]", Node::List(vec![text("a")])),
            ("{a: !reset [x]}", map(&[("a", Node::Null)])),
        ] {
            assert_eq!(read(yaml), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn anchors_and_merge_keys_are_resolved_and_what_is_written_there_goes_first() {
        let yaml = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\nall: {y: 0, <<: [*b, *m]}\none: {<<: *b}\nsame: *b";
        let node = read(yaml).expect("yaml");
        let number = |text: &str| Node::Number(text.to_owned());
        let all = map(&[("y", number("0")), ("x", number("1")), ("z", number("4"))]);
        assert_eq!(node.get("all"), Some(&all));
        assert_eq!(node.get("one"), node.get("base"));
        assert_eq!(node.get("same"), node.get("base"));
    }

    #[test]
    fn broken_or_boundless_texts_are_refused() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs += &format!("a{level}: &a{level} [{inner}]\n");
        }
        let wide = format!("a: &a [{}]\nb: [{}]", "x, ".repeat(2000), "*a, ".repeat(2000));
        let deep = "[".repeat(10_000);
        for (yaml, part) in [
            ("a: [", "correct the YAML"),
            ("a: b: c", "correct the YAML"),
            ("a: 1\na: 2", "`a` stands there twice"),
            ("{<<: 1}", "`<<` merges mappings"),
            ("{[a]: 1}", "a key of a mapping is a list"),
            ("*nobody", "correct the YAML"),
            ("a: &a [*a]", "correct the YAML"),
            ("a: 1\n---\nb: 2", "several documents"),
            (&laughs, ""),
            (&wide, "aliases of aliases"),
            (&deep, "deep: write it flatter"),
            (&"- ".repeat(100_000), "deep: write it flatter"),
            (&"{a: ".repeat(101), "deep: write it flatter"),
        ] {
            let sentence = read(yaml).expect_err(part);
            assert!(sentence.contains(part) && !sentence.contains('\n'), "{part:?} is not in {sentence:?}");
        }
    }
}
