//! The part of Go's templates that people write after `--format`: fields, `json`, `index`, `len`, `upper`, `lower`.
//! Source: Go `text/template`; docker/cli `templates`.

use serde_json::Value;

use crate::cli::exit::Failure;

/// A format that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    /// As it was written, for refusals.
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// What stands between braces, as words.
    Action(Vec<Word>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// `.A.B`; nothing is all.
    Field(Vec<String>),
    /// A quoted text.
    Text(String),
    /// A function.
    Function(String),
}

const FUNCTIONS: [&str; 5] = ["json", "index", "len", "upper", "lower"];

fn refused(format: &str, why: &str) -> Failure {
    Failure::Usage(format!(
        "--format {format}: {why}: write fields such as {{{{.Name}}}}, with {} where needed",
        FUNCTIONS.join(", ")
    ))
}

impl Template {
    /// Reads a format. With `escapes`, `\t` and `\n` stand for the characters, as in listings.
    pub fn new(format: &str, escapes: bool) -> Result<Template, Failure> {
        let text = if escapes { format.replace("\\t", "\t").replace("\\n", "\n") } else { format.to_owned() };
        let (mut parts, mut rest) = (Vec::new(), text.as_str());
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) =
                after.split_once("}}").ok_or_else(|| refused(format, "a brace is never closed"))?;
            // A dash takes the blanks beside the action away.
            let (before, action) = match action.strip_prefix("- ") {
                Some(action) => (before.trim_end(), action),
                None => (before, action),
            };
            let (action, after) = match action.strip_suffix(" -") {
                Some(action) => (action, after.trim_start()),
                None => (action, after),
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Action(words(action).map_err(|why| refused(format, &why))?));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Template { source: format.to_owned(), parts })
    }

    /// The text for one object. Errors: `Usage` for a field that it does not have.
    pub fn fill(&self, object: &Value) -> Result<String, Failure> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out += text,
                Part::Action(words) => {
                    out += &show(&evaluate(words, object).map_err(|why| refused(&self.source, &why))?)
                }
            }
        }
        Ok(out)
    }

    /// The headings of a table: for each column the names of its fields, in capitals.
    pub fn headings(&self, heading: impl Fn(&str) -> String) -> String {
        let field = |words: &[Word]| {
            words.iter().find_map(|word| match word {
                Word::Field(path) => path.first().map(|name| heading(name)),
                _ => None,
            })
        };
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Action(words) => field(words).unwrap_or_default(),
            })
            .collect()
    }
}

/// Splits what stands between braces. A pipe puts what is before it behind what is after it.
fn words(action: &str) -> Result<Vec<Word>, String> {
    let mut piped: Vec<Word> = Vec::new();
    let mut current: Vec<Word> = Vec::new();
    let mut rest = action.trim();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' | '`' => {
                let (text, after) = rest[1..].split_once(first).ok_or("a quote is never closed")?;
                (Word::Text(text.to_owned()), after)
            }
            '|' => {
                current.append(&mut piped);
                piped = std::mem::take(&mut current);
                rest = rest[1..].trim_start();
                continue;
            }
            _ => {
                let end = rest.find([' ', '|', '\t']).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                let word = match word.strip_prefix('.') {
                    Some(path) => Word::Field(
                        path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
                    ),
                    None if FUNCTIONS.contains(&word) => Word::Function(word.to_owned()),
                    None => return Err(format!("`{word}` is not known here")),
                };
                (word, after)
            }
        };
        current.push(word);
        rest = after.trim_start();
    }
    current.append(&mut piped);
    if current.is_empty() { Err("nothing between braces".to_owned()) } else { Ok(current) }
}

fn evaluate(words: &[Word], object: &Value) -> Result<Value, String> {
    match words {
        // `.Label "key"`, the one method there is.
        [Word::Field(path), Word::Text(key)] if path.len() == 1 && path[0] == "Label" => {
            Ok(object.get("Label").and_then(|labels| labels.get(key)).cloned().unwrap_or_else(|| "".into()))
        }
        [Word::Field(path)] => field(path, object),
        [Word::Text(text)] => Ok(text.as_str().into()),
        [Word::Function(name), Word::Function(_), ..] if name != "index" => {
            let inner = evaluate(&words[1..], object)?;
            apply(name, &inner, &[])
        }
        [Word::Function(name), first, keys @ ..] => {
            let value = evaluate(std::slice::from_ref(first), object)?;
            let keys: Result<Vec<Value>, String> =
                keys.iter().map(|key| evaluate(std::slice::from_ref(key), object)).collect();
            apply(name, &value, &keys?)
        }
        _ => Err("an action that is not known here".to_owned()),
    }
}

fn field(path: &[String], object: &Value) -> Result<Value, String> {
    let mut value = object;
    for (depth, name) in path.iter().enumerate() {
        match value.get(name) {
            Some(found) => value = found,
            // Fields are a fixed set; keys of a map are not.
            None if depth == 0 => return Err(format!("there is no field `.{name}`")),
            None => return Ok("<no value>".into()),
        }
    }
    // The whole object is not to have what only `.Label` is for.
    let mut value = value.clone();
    if let (true, Some(map)) = (path.is_empty(), value.as_object_mut()) {
        map.remove("Label");
    }
    Ok(value)
}

fn apply(function: &str, value: &Value, keys: &[Value]) -> Result<Value, String> {
    Ok(match function {
        "json" => serde_json::to_string(value).unwrap_or_default().into(),
        "upper" => show(value).to_uppercase().into(),
        "lower" => show(value).to_lowercase().into(),
        "len" => match value {
            Value::Array(list) => list.len().into(),
            Value::Object(map) => map.len().into(),
            other => show(other).len().into(),
        },
        _ => {
            let mut value = value;
            for key in keys {
                let found = match (key.as_str(), key.as_u64()) {
                    (Some(key), _) => value.get(key),
                    (None, Some(index)) => usize::try_from(index).ok().and_then(|index| value.get(index)),
                    _ => None,
                };
                match found {
                    Some(found) => value = found,
                    None => return Ok("".into()),
                }
            }
            value.clone()
        }
    })
}

/// As Go prints values.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", show(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_filled_as_docker_fills_them() {
        let object =
            serde_json::json!({"Name": "v1", "Labels": {"a": "", "b": "2"}, "Label": {"b": "2"}, "Size": 3});
        for (format, expected) in [
            ("plain", "plain"),
            ("{{.Name}}", "v1"),
            ("{{ .Name }}-{{.Size}}", "v1-3"),
            ("{{.Labels}}", "map[a: b:2]"),
            ("{{json .Labels}}", r#"{"a":"","b":"2"}"#),
            ("{{.Labels | json}}", r#"{"a":"","b":"2"}"#),
            ("{{json .}}", r#"{"Labels":{"a":"","b":"2"},"Name":"v1","Size":3}"#),
            ("{{index .Labels \"b\"}}{{index .Labels \"c\"}}", "2"),
            ("{{.Label \"b\"}}{{.Label \"c\"}}", "2"),
            ("{{.Labels.b}} {{.Labels.c}}", "2 <no value>"),
            ("{{len .Labels}}", "2"),
            ("{{.Name | upper}}{{upper .Name}}", "V1V1"),
            ("{{\"x\"}} {{- .Name -}} y", "xv1y"),
        ] {
            let filled = Template::new(format, false).and_then(|template| template.fill(&object));
            assert_eq!(filled.as_deref(), Ok(expected), "{format}");
        }
        for bad in ["{{.Name", "{{}}", "{{range .Labels}}x{{end}}", "{{\"a}}", "{{.Foo}}", "{{.Name .Name}}"]
        {
            assert!(Template::new(bad, false).and_then(|template| template.fill(&object)).is_err(), "{bad}");
        }
    }
}
