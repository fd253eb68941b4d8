//! JSON as lua-cjson reads it, token by token: also hexadecimal numbers, `nan` and `inf`, and any escaped letter.

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// `{`
    ObjectBegin,
    /// `}`
    ObjectEnd,
    /// `[`
    ArrayBegin,
    /// `]`
    ArrayEnd,
    /// A string, without its quotes and escapes.
    String(Vec<u8>),
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// `null`
    Null,
    /// `:`
    Colon,
    /// `,`
    Comma,
    /// The end of the text.
    End,
    /// Something else, and what is wrong with it.
    Wrong(&'static str),
}

impl Token {
    /// Whether it is a value by itself.
    pub fn is_scalar(&self) -> bool {
        matches!(
            self,
            Self::String(_) | Self::Number(_) | Self::Boolean(_) | Self::Null
        )
    }

    /// Its name in errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::String(_) => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Wrong(what) => what,
        }
    }
}

/// Reads one text.
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// Where the last token begins, or what is wrong with it.
    pub token_at: usize,
}

impl<'a> Reader<'a> {
    /// At the begin of a text.
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            token_at: 0,
        }
    }

    /// The next token.
    pub fn next(&mut self) -> Token {
        let rest = &self.text[self.at..];
        let spaces = rest.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
        self.at += spaces;
        self.token_at = self.at;
        let rest = &rest[spaces..];
        let Some(&first) = rest.first() else {
            return Token::End;
        };
        let one = match first {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'"' => return self.string(),
            b'-' | b'+' | b'0'..=b'9' => return self.number(),
            _ => return self.word(rest),
        };
        self.at += 1;
        one
    }

    fn word(&mut self, rest: &[u8]) -> Token {
        for (word, token) in [
            ("true", Token::Boolean(true)),
            ("false", Token::Boolean(false)),
            ("null", Token::Null),
        ] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return token;
            }
        }
        match named_number(rest) {
            Some((number, len)) => {
                self.at += len;
                Token::Number(number)
            }
            None => Token::Wrong("invalid token"),
        }
    }

    fn number(&mut self) -> Token {
        match read_number(&self.text[self.at..]) {
            Some((number, len)) => {
                self.at += len;
                Token::Number(number)
            }
            None => Token::Wrong("invalid number"),
        }
    }

    fn string(&mut self) -> Token {
        let mut string = Vec::new();
        let mut at = self.at + 1;
        loop {
            match self.text.get(at) {
                None => {
                    self.token_at = at;
                    return Token::Wrong("unexpected end of string");
                }
                Some(b'"') => {
                    self.at = at + 1;
                    return Token::String(string);
                }
                Some(b'\\') => match self.text.get(at + 1) {
                    Some(b'u') => {
                        let Some((letter, len)) = escaped(&self.text[at..]) else {
                            self.token_at = at;
                            return Token::Wrong("invalid unicode escape code");
                        };
                        string.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                        at += len;
                    }
                    Some(&byte) => {
                        let Some(meant) = meant_by(byte) else {
                            self.token_at = at;
                            return Token::Wrong("invalid escape code");
                        };
                        string.push(meant);
                        at += 2;
                    }
                    None => at += 1,
                },
                Some(&byte) => {
                    string.push(byte);
                    at += 1;
                }
            }
        }
    }
}

/// What a letter behind a backslash stands for.
fn meant_by(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' | b'/' => Some(byte),
        b'b' => Some(8),
        b't' => Some(b'\t'),
        b'n' => Some(b'\n'),
        b'f' => Some(12),
        b'r' => Some(b'\r'),
        _ => None,
    }
}

/// The letter of `\u0041`, or of two such that belong together, and how long that is.
fn escaped(text: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0u32, |unit, &digit| {
            Some(unit << 4 | char::from(digit).to_digit(16)?)
        })
    };
    let first = unit(0)?;
    if !(0xd800..0xe000).contains(&first) {
        return char::from_u32(first).map(|letter| (letter, 6));
    }
    let second = unit(6).filter(|second| (0xdc00..0xe000).contains(second))?;
    let code = (first.checked_sub(0xd800)? << 10 | (second - 0xdc00)) + 0x1_0000;
    char::from_u32(code).map(|letter| (letter, 12))
}

/// `inf`, `infinity` or `nan` in any case.
fn named_number(text: &[u8]) -> Option<(f64, usize)> {
    let begins = |word: &str| {
        text.get(..word.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(word.as_bytes()))
    };
    [
        ("infinity", f64::INFINITY),
        ("inf", f64::INFINITY),
        ("nan", f64::NAN),
    ]
    .into_iter()
    .find(|(word, _)| begins(word))
    .map(|(word, number)| (number, word.len()))
}

/// The number that a text begins with as C reads it, and how long it is.
fn read_number(text: &[u8]) -> Option<(f64, usize)> {
    let signs = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let sign = if text.first() == Some(&b'-') { -1.0 } else { 1.0 };
    let rest = &text[signs..];
    if let Some((number, len)) = named_number(rest) {
        return Some((sign * number, signs + len));
    }
    let digits_from = |from: usize| {
        rest[from.min(rest.len())..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    if let Some([b'0', b'x' | b'X']) = rest.get(..2) {
        let digits = rest[2..].iter().map_while(|&byte| char::from(byte).to_digit(16));
        let (number, count) = digits.fold((0.0, 0), |(number, count), digit| {
            (number * 16.0 + f64::from(digit), count + 1)
        });
        if count > 0 {
            return Some((sign * number, signs + 2 + count));
        }
    }
    let whole = digits_from(0);
    let mut len = whole;
    let mut decimals = 0;
    if rest.get(len) == Some(&b'.') {
        decimals = digits_from(len + 1);
        len += 1 + decimals;
    }
    if whole + decimals == 0 {
        return None;
    }
    if matches!(rest.get(len), Some(b'e' | b'E')) {
        let signs = usize::from(matches!(rest.get(len + 1), Some(b'-' | b'+')));
        let digits = digits_from(len + 1 + signs);
        if digits > 0 {
            len += 1 + signs + digits;
        }
    }
    let number: f64 = std::str::from_utf8(&rest[..len]).ok()?.parse().ok()?;
    Some((sign * number, signs + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_by_cjson() {
        let table: [(&str, Token, usize); 24] = [
            ("", Token::End, 0),
            ("  ", Token::End, 2),
            (" {", Token::ObjectBegin, 1),
            ("null", Token::Null, 0),
            ("nul", Token::Wrong("invalid token"), 0),
            ("'a'", Token::Wrong("invalid token"), 0),
            ("1.5e3", Token::Number(1500.0), 0),
            ("-0.25", Token::Number(-0.25), 0),
            (".5", Token::Wrong("invalid token"), 0),
            ("5.", Token::Number(5.0), 0),
            ("1e", Token::Number(1.0), 0),
            ("0x1F", Token::Number(31.0), 0),
            ("0x", Token::Number(0.0), 0),
            ("01", Token::Number(1.0), 0),
            ("-", Token::Wrong("invalid number"), 0),
            ("-inf", Token::Number(f64::NEG_INFINITY), 0),
            ("Infinity", Token::Number(f64::INFINITY), 0),
            (r#""a\n\"\/""#, Token::String(b"a\n\"/".to_vec()), 0),
            (
                r#""\u00e9\ud83d\ude00""#,
                Token::String("é😀".as_bytes().to_vec()),
                0,
            ),
            (r#""\ud83d""#, Token::Wrong("invalid unicode escape code"), 1),
            (r#""a\ude00""#, Token::Wrong("invalid unicode escape code"), 2),
            (r#""\x""#, Token::Wrong("invalid escape code"), 1),
            (r#""abc"#, Token::Wrong("unexpected end of string"), 4),
            (r#""ab\"#, Token::Wrong("unexpected end of string"), 4),
        ];
        for (text, token, at) in table {
            let mut reader = Reader::new(text.as_bytes());
            assert_eq!(reader.next(), token, "{text:?}");
            assert_eq!(reader.token_at, at, "{text:?}");
        }
    }
}
