//! The glob patterns of `KEYS`, `SCAN … MATCH` and `CONFIG GET`.
//!
//! ```text
//! pattern = { "*" | "?" | "[" [ "^" ] { byte | byte "-" byte | "\" byte } "]" | "\" byte | byte }
//! ```
//!
//! A class that isn't closed ends with the pattern, as in Redis. Matching takes time proportional to pattern
//! times text at worst: on a mismatch only the last `*` is tried again, since an earlier one can't help.

/// Whether the whole text matches the pattern.
pub fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while text_at < text.len() {
        if pattern.get(pattern_at) == Some(&b'*') {
            last_star = Some((pattern_at + 1, text_at));
            pattern_at += 1;
            continue;
        }
        if let Some(len) = match_one(&pattern[pattern_at..], text[text_at]) {
            pattern_at += len;
            text_at += 1;
            continue;
        }
        let Some((behind_star, taken)) = last_star else {
            return false;
        };
        last_star = Some((behind_star, taken + 1));
        (pattern_at, text_at) = (behind_star, taken + 1);
    }
    pattern[pattern_at..].iter().all(|&byte| byte == b'*')
}

/// How long the first element of the pattern is, if it matches the byte. It is not a `*`.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => match_class(class, byte).map(|len| len + 1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// How long the class is, its closing bracket included, if the byte is in it.
fn match_class(class: &[u8], byte: u8) -> Option<usize> {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match &class[at.min(class.len())..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let table = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxbxxa", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("h[a\\]]llo", "h]llo", true),
            ("h[a", "ha", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("a\\", "a\\", true),
            ("[", "a", false),
            ("[]", "a", false),
            ("a**b", "ab", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(
                matches_pattern(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "a*".repeat(5_000) + "b";
        assert!(!matches_pattern(
            pattern.as_bytes(),
            "a".repeat(20_000).as_bytes()
        ));
    }
}
