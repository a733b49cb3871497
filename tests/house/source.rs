//! Sources as the house's rules see them: the code alone.

/// The code of a file, each line where it was: no comments, nothing between quotes, no items that are for tests only.
pub(crate) fn code(text: &str) -> String {
    without_tests(&without_words(text))
}

/// The same lines, blank.
fn blank(out: &mut String, text: &str) {
    out.extend(text.chars().map(|c| if c == '\n' { c } else { ' ' }));
}

/// Comments and literals become blank.
fn without_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = comment(rest).or_else(|| literal(rest, out.chars().next_back())) {
            blank(&mut out, &rest[..length]);
            rest = &rest[length..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// The length of a comment that begins here.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    loop {
        let step = rest[at..].find(['/', '*']).expect("a comment ends");
        at += step;
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => depth += 1,
            [b'*', b'/', ..] => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The length of a string or a character that begins here.
fn literal(rest: &str, before: Option<char>) -> Option<usize> {
    let in_a_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let raw = rest.strip_prefix('r').filter(|_| !in_a_name).map(|rest| rest.trim_start_matches('#'));
    if let Some(raw) = raw.and_then(|raw| raw.strip_prefix('"')) {
        let open = rest.len() - raw.len();
        let end = format!("\"{}", "#".repeat(open - 2));
        return Some(open + raw.find(&end).expect("a string ends") + end.len());
    }
    let quote = rest.chars().next().filter(|&c| c == '"' || c == '\'')?;
    let inside = &rest[1..];
    // A lifetime has no second quote after one character.
    let one = inside.chars().next().map_or(0, char::len_utf8);
    if quote == '\'' && !inside.starts_with('\\') && !inside[one..].starts_with('\'') {
        return None;
    }
    let mut escaped = false;
    let end = inside.find(|c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(end.expect("a literal ends") + 2)
}

/// Items under `#[cfg(test)]` or `#[cfg(all(test, ...))]` become blank, up to their `;` or closing brace.
fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = ["#[cfg(test", "#[cfg(all(test"].iter().filter_map(|mark| rest.find(mark)).min() {
        out.push_str(&rest[..at]);
        let mut depth = 0;
        let length = rest[at..].char_indices().find_map(|(length, c)| {
            depth += match c {
                '(' | '[' | '{' => 1,
                ')' | ']' | '}' => -1,
                _ => 0,
            };
            let ends = depth == 0 && (c == ';' || c == '}' || c == ',');
            ends.then_some(length + c.len_utf8())
        });
        let length = length.unwrap_or(rest.len() - at);
        blank(&mut out, &rest[at..at + length]);
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

/// The words of a text: names, and the punctuation that matters here.
pub(crate) fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            words.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    words
}

#[test]
fn only_code_is_left() {
    let text = r##"use a::b; // c::d
/* e /* f */ g */ const H: &str = "i \" j"; const K: char = '"'; const L: &str = r#"m " n"#;
fn o<'p>(q: &'p str) -> char { '\'' } // "r
#[cfg(all(test, not(s)))]
mod t {
    fn u() { v[1]; }
}
#[cfg(test)]
use w;
enum X {
    #[cfg(test)]
    Y,
    Z,
}
fn var() {}
"##;
    let code = code(text);
    assert_eq!(code.lines().count(), text.lines().count());
    let names = |word: &&str| word.chars().all(char::is_alphanumeric);
    let left: Vec<_> = words(&code).into_iter().filter(names).collect();
    let expected = "use a b const H str const K char const L str fn o p q p str char enum X Z fn var";
    assert_eq!(left.join(" "), expected);
}
