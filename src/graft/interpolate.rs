//! Variables in the values of a compose file: `$VAR`, `${VAR}`, `${VAR:-else}` and its kin, `$$`.
//!
//! Source: compose-spec, "Interpolation"; compose-go `template/template.go`.

/// What a variable stands for.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Values inside values, which nobody writes deeper.
const DEEPEST: usize = 32;

/// `text` with its variables replaced. `unset` hears of each that has no value where the text gives none either: it stands for
/// nothing. The reason why not is a sentence.
pub(super) fn interpolate(text: &str, env: Env<'_>, unset: &dyn Fn(&str)) -> Result<String, String> {
    replace(text, &Variables { env, unset }, DEEPEST)
}

struct Variables<'a> {
    env: Env<'a>,
    unset: &'a dyn Fn(&str),
}

impl Variables<'_> {
    fn value(&self, name: &str) -> String {
        (self.env)(name).unwrap_or_else(|| {
            (self.unset)(name);
            String::new()
        })
    }
}

fn replace(text: &str, env: &Variables<'_>, depth: usize) -> Result<String, String> {
    let invalid = || {
        format!(
            "invalid interpolation format: \"{text}\": write `$$` for a dollar sign, and `${{NAME}}` for a variable"
        )
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out += &rest[..at];
        let after = &rest[at + 1..];
        if let Some(more) = after.strip_prefix('$') {
            out.push('$');
            rest = more;
        } else if let Some(inside) = after.strip_prefix('{') {
            let end = closing(inside).ok_or_else(invalid)?;
            out += &braced(&inside[..end], env, depth)?.ok_or_else(invalid)?;
            rest = &inside[end + 1..];
        } else {
            let name = name(after).ok_or_else(invalid)?;
            out += &env.value(name);
            rest = &after[name.len()..];
        }
    }
    Ok(out + rest)
}

/// Where the brace is that closes one opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if at > 0 && text.as_bytes()[at - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The name of a variable at the beginning of `text`.
fn name(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    (end > 0 && !text.starts_with(|c: char| c.is_ascii_digit())).then(|| &text[..end])
}

/// What `${inside}` stands for; nothing if it is none of the forms.
fn braced(inside: &str, env: &Variables<'_>, depth: usize) -> Result<Option<String>, String> {
    let Some(name) = name(inside) else { return Ok(None) };
    let after = &inside[name.len()..];
    if after.is_empty() {
        return Ok(Some(env.value(name)));
    }
    let (empty_counts, after) = match after.strip_prefix(':') {
        Some(after) => (false, after),
        None => (true, after),
    };
    // With a colon an empty value is as good as none.
    let value = (env.env)(name).filter(|value| empty_counts || !value.is_empty());
    let mut letters = after.chars();
    let operator = letters.next();
    let depth = depth
        .checked_sub(1)
        .ok_or_else(|| format!("variables in `${{{name}...}}` stand too deep: use fewer"))?;
    let other = || replace(letters.as_str(), env, depth);
    Ok(match (operator, value) {
        (Some('-'), Some(value)) => Some(value),
        (Some('-'), None) => Some(other()?),
        (Some('+'), Some(_)) => Some(other()?),
        (Some('+'), None) => Some(String::new()),
        (Some('?'), Some(value)) => Some(value),
        (Some('?'), None) => {
            let why = other()?;
            let why = if why.is_empty() { "it is not set" } else { &why };
            return Err(format!(
                "required variable {name} is missing a value: {why}: set it in the environment"
            ));
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("/a".to_owned()),
            "B_1" => Some("b$A".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    /// Source: compose-go `template/template_test.go`.
    #[test]
    fn every_form() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$A", "/a"),
            ("${A}:/x", "/a:/x"),
            ("x$A/y", "x/a/y"),
            ("$B_1-", "b$A-"),
            ("$$A $$$A $$", "$A $/a $"),
            ("[${NONE}]", "[]"),
            ("$NONE.", "."),
            ("${A:-d}${A-d}", "/a/a"),
            ("${NONE:-d}${NONE-d}", "dd"),
            ("[${EMPTY:-d}${EMPTY-d}]", "[d]"),
            ("${NONE:-}", ""),
            ("${A:+s}${EMPTY:+s}${EMPTY+t}${NONE+u}", "st"),
            ("${A:?must}${EMPTY?must}", "/a"),
            ("${NONE:-${A}}/${NONE-${NONE:-$$x}}", "/a/$x"),
            ("${NONE:-a:b,c-d}", "a:b,c-d"),
            ("${NONE:-{x}}", "{x}"),
        ] {
            assert_eq!(interpolate(text, &env, &|_| {}).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_set_and_has_no_other_value_is_told() {
        let told = std::cell::RefCell::new(Vec::new());
        let unset = |name: &str| told.borrow_mut().push(name.to_owned());
        let text = "$A $X ${Y} ${Z:-d} ${Z-d} ${Z+s} ${Z:-${W}} ${EMPTY} $$V";
        assert_eq!(interpolate(text, &env, &unset).as_deref(), Ok("/a   d d    $V"));
        assert_eq!(told.into_inner(), ["X", "Y", "W"]);
    }

    #[test]
    fn what_is_no_form_or_must_be_set() {
        let deep = "${N:-".repeat(40) + &"}".repeat(40);
        for (text, part) in [
            ("$", "invalid interpolation format: \"$\""),
            ("a$ b", "`$$`"),
            ("${", "invalid"),
            ("${}", "invalid"),
            ("${A", "invalid"),
            ("$1", "invalid"),
            ("${A!b}", "invalid"),
            ("${A:}", "invalid"),
            ("${ A}", "invalid"),
            ("${NONE:?give me}", "required variable NONE is missing a value: give me"),
            ("${EMPTY:?}", "EMPTY is missing a value"),
            ("${NONE?}", "NONE is missing a value"),
            ("${NONE:-${A", "invalid"),
            (&deep, "too deep"),
        ] {
            let sentence = interpolate(text, &env, &|_| {}).expect_err(text);
            assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
        }
    }
}
