//! Reads the text of a condition. Bounded before and while it is read: by its length, its depth and its operations.

use regex::Regex;

use super::{FACTS, Value};
use crate::limits;

/// An expression. Chains of `&&` and `||` are flat.
#[derive(Clone)]
pub(super) enum Expression {
    Value(Value),
    Fact(String),
    List(Vec<Expression>),
    Member(Box<Expression>, String),
    Index(Box<Expression>, Box<Expression>),
    /// `has(a.b)`.
    Has(Box<Expression>, String),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    If(Box<[Expression; 3]>),
    Call(Function, Box<Expression>, Box<Expression>),
    Matches(Box<Expression>, Regex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    StartsWith,
    EndsWith,
    Contains,
    Size,
    Int,
    Text,
}

/// Where it is and what is wrong.
type Fault = (usize, String);
type Parsed<T> = Result<T, Fault>;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Int(i64),
    Text(String),
    Sign(&'static str),
}

const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ".", ",", "?", ":",
    "{", "}",
];

/// Reads a condition.
pub(super) fn parse(text: &str) -> Parsed<Expression> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, end: text.len(), depth: 0 };
    let expression = parser.ternary()?;
    match parser.tokens.get(parser.at) {
        None => Ok(expression),
        Some((at, token)) => Err((*at, format!("{} is not expected here", said(token)))),
    }
}

fn said(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("{word:?}"),
        Token::Int(number) => number.to_string(),
        Token::Text(text) => format!("the text {text:?}"),
        Token::Sign(sign) => format!("{sign:?}"),
    }
}

fn tokens(text: &str) -> Parsed<Vec<(usize, Token)>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let raw = rest.starts_with("r'") || rest.starts_with("r\"");
        let length = if raw || c == '\'' || c == '"' {
            let (value, length) = text_token(rest, raw).map_err(|why| (at, why.to_owned()))?;
            tokens.push((at, Token::Text(value)));
            length
        } else if c.is_ascii_digit() {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            let number =
                rest[..length].parse().map_err(|_| (at, format!("{:?} is no whole number", &rest[..length])))?;
            tokens.push((at, Token::Int(number)));
            length
        } else if c.is_ascii_alphabetic() || c == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push((at, Token::Word(rest[..length].to_owned())));
            length
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| match c {
                '=' => (at, "write == to compare".to_owned()),
                '&' | '|' => (at, "write && and ||".to_owned()),
                '$' => (at, "variables are written variables['NAME'] here".to_owned()),
                c => (at, format!("{c:?} is not expected here")),
            })?;
            tokens.push((at, Token::Sign(sign)));
            sign.len()
        };
        if tokens.len() > limits::TOKENS {
            return Err((at, format!("more than {} words and signs", limits::TOKENS)));
        }
        at += length;
    }
    Ok(tokens)
}

/// A text in quotes, and how many bytes it takes.
fn text_token(rest: &str, raw: bool) -> Result<(String, usize), &'static str> {
    let mut chars = rest.char_indices();
    let quote = if raw { chars.nth(1) } else { chars.next() }.map(|(_, c)| c);
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        if Some(c) == quote {
            return Ok((value, at + 1));
        }
        if c != '\\' || raw {
            value.push(c);
            continue;
        }
        value.push(match chars.next().map(|(_, c)| c) {
            Some(c @ ('\\' | '\'' | '"' | '`' | '?')) => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            _ => {
                return Err("of the escapes only \\\\ \\' \\\" \\n \\r \\t are supported; r'...' takes all as written");
            }
        });
    }
    Err("a text without its closing quote")
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(at, _)| *at)
    }

    fn fail<T>(&self, why: impl Into<String>) -> Parsed<T> {
        Err((self.place(), why.into()))
    }

    fn sign(&mut self, wanted: &[&'static str]) -> Option<&'static str> {
        match self.tokens.get(self.at) {
            Some((_, Token::Sign(sign))) if wanted.contains(sign) => {
                self.at += 1;
                Some(sign)
            }
            _ => None,
        }
    }

    fn need(&mut self, sign: &'static str) -> Parsed<()> {
        match self.sign(&[sign]) {
            Some(_) => Ok(()),
            None => self.fail(format!("{sign:?} is missing here")),
        }
    }

    /// One level deeper, and back.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == limits::DEPTH {
            return self.fail(format!("nested more than {} deep", limits::DEPTH));
        }
        self.depth += 1;
        let parsed = inner(self);
        self.depth -= 1;
        parsed
    }

    fn ternary(&mut self) -> Parsed<Expression> {
        let condition = self.or()?;
        if self.sign(&["?"]).is_none() {
            return Ok(condition);
        }
        let then = self.nested(Self::or)?;
        self.need(":")?;
        let other = self.nested(Self::ternary)?;
        Ok(Expression::If(Box::new([condition, then, other])))
    }

    fn or(&mut self) -> Parsed<Expression> {
        let mut all = vec![self.and()?];
        while self.sign(&["||"]).is_some() {
            all.push(self.and()?);
        }
        Ok(one(all, Expression::Or))
    }

    fn and(&mut self) -> Parsed<Expression> {
        let mut all = vec![self.relation()?];
        while self.sign(&["&&"]).is_some() {
            all.push(self.relation()?);
        }
        Ok(one(all, Expression::And))
    }

    fn relation(&mut self) -> Parsed<Expression> {
        let mut left = self.sum()?;
        loop {
            let operator = match self.sign(&["==", "!=", "<", "<=", ">", ">="]) {
                Some("==") => Operator::Equal,
                Some("!=") => Operator::Unequal,
                Some("<") => Operator::Less,
                Some("<=") => Operator::LessOrEqual,
                Some(">") => Operator::More,
                Some(_) => Operator::MoreOrEqual,
                None if matches!(self.tokens.get(self.at), Some((_, Token::Word(word))) if word == "in") => {
                    self.at += 1;
                    Operator::In
                }
                None => return Ok(left),
            };
            left = Expression::Binary(operator, left.into(), self.sum()?.into());
        }
    }

    fn sum(&mut self) -> Parsed<Expression> {
        let mut left = self.product()?;
        while let Some(sign) = self.sign(&["+", "-"]) {
            let operator = if sign == "+" { Operator::Add } else { Operator::Subtract };
            left = Expression::Binary(operator, left.into(), self.product()?.into());
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed<Expression> {
        let mut left = self.unary()?;
        while let Some(sign) = self.sign(&["*", "/", "%"]) {
            let operator = match sign {
                "*" => Operator::Multiply,
                "/" => Operator::Divide,
                _ => Operator::Remainder,
            };
            left = Expression::Binary(operator, left.into(), self.unary()?.into());
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expression> {
        match self.sign(&["!", "-"]) {
            Some("!") => Ok(Expression::Not(self.nested(Self::unary)?.into())),
            Some(_) => Ok(Expression::Negative(self.nested(Self::unary)?.into())),
            None => self.member(),
        }
    }

    fn member(&mut self) -> Parsed<Expression> {
        let mut base = self.primary()?;
        loop {
            match self.sign(&[".", "["]) {
                Some(".") => {
                    let name = self.word()?;
                    base = match self.sign(&["("]) {
                        Some(_) => self.method(base, &name)?,
                        None => Expression::Member(base.into(), name),
                    };
                }
                Some(_) => {
                    let index = self.nested(Self::ternary)?;
                    self.need("]")?;
                    base = Expression::Index(base.into(), index.into());
                }
                None => return Ok(base),
            }
        }
    }

    fn word(&mut self) -> Parsed<String> {
        match self.tokens.get(self.at) {
            Some((_, Token::Word(word))) => {
                self.at += 1;
                Ok(word.clone())
            }
            _ => self.fail("a name is missing here"),
        }
    }

    /// `a.name(...)`, the bracket being open.
    fn method(&mut self, base: Expression, name: &str) -> Parsed<Expression> {
        let function = match name {
            "startsWith" => Function::StartsWith,
            "endsWith" => Function::EndsWith,
            "contains" => Function::Contains,
            "size" => {
                self.need(")")?;
                return Ok(Expression::Call(Function::Size, base.into(), Expression::Value(Value::Null).into()));
            }
            "matches" => return self.pattern(base),
            _ => {
                self.at = self.at.saturating_sub(2);
                return self.fail(format!(
                    "there is no method {name:?}: there are contains, endsWith, matches, size, startsWith"
                ));
            }
        };
        let argument = self.nested(Self::ternary)?;
        self.need(")")?;
        Ok(Expression::Call(function, base.into(), argument.into()))
    }

    fn pattern(&mut self, base: Expression) -> Parsed<Expression> {
        let Some((_, Token::Text(pattern))) = self.tokens.get(self.at) else {
            return self.fail("the pattern of matches is to be written out, such as matches('^80')");
        };
        // RE2's syntax, as CEL has it; linear in time, and bounded in space.
        let built = regex::RegexBuilder::new(pattern).size_limit(limits::REGEX).nest_limit(16).build();
        let Ok(regex) = built else {
            let pattern = pattern.clone();
            return self.fail(format!("{pattern:?} is no regular expression, or too large a one"));
        };
        self.at += 1;
        self.need(")")?;
        Ok(Expression::Matches(base.into(), regex))
    }

    fn primary(&mut self) -> Parsed<Expression> {
        let token = self.tokens.get(self.at).map(|(_, token)| token.clone());
        match token {
            Some(Token::Int(number)) => {
                self.at += 1;
                Ok(Expression::Value(number.into()))
            }
            Some(Token::Text(text)) => {
                self.at += 1;
                Ok(Expression::Value(Value::Text(text)))
            }
            Some(Token::Word(word)) => {
                let called = matches!(self.tokens.get(self.at + 1), Some((_, Token::Sign("("))));
                if called { self.function(&word) } else { self.name(&word) }
            }
            Some(Token::Sign("(")) => {
                self.at += 1;
                let inner = self.nested(Self::ternary)?;
                self.need(")")?;
                Ok(inner)
            }
            Some(Token::Sign("[")) => {
                self.at += 1;
                self.list()
            }
            Some(Token::Sign("{")) => self.fail("maps are not written out here"),
            Some(token) => self.fail(format!("{} is not expected here", said(&token))),
            None => self.fail("something is missing here"),
        }
    }

    fn list(&mut self) -> Parsed<Expression> {
        let mut items = Vec::new();
        if self.sign(&["]"]).is_some() {
            return Ok(Expression::List(items));
        }
        loop {
            items.push(self.nested(Self::ternary)?);
            if self.sign(&[","]).is_none() {
                self.need("]")?;
                return Ok(Expression::List(items));
            }
        }
    }

    fn name(&mut self, word: &str) -> Parsed<Expression> {
        let value = match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null,
            fact if FACTS.contains(&fact) => {
                self.at += 1;
                return Ok(Expression::Fact(fact.to_owned()));
            }
            _ => return self.fail(format!("there is no {word:?}: there are {}", FACTS.join(", "))),
        };
        self.at += 1;
        Ok(Expression::Value(value))
    }

    fn function(&mut self, word: &str) -> Parsed<Expression> {
        let function = match word {
            "size" => Some(Function::Size),
            "int" => Some(Function::Int),
            "string" => Some(Function::Text),
            "has" => None,
            _ => return self.fail(format!("there is no function {word:?}: there are has, int, size, string")),
        };
        self.at += 2;
        let argument = self.nested(Self::ternary)?;
        match (function, argument) {
            (Some(function), argument) => {
                self.need(")")?;
                Ok(Expression::Call(function, argument.into(), Expression::Value(Value::Null).into()))
            }
            (None, Expression::Member(base, name)) => {
                self.need(")")?;
                Ok(Expression::Has(base, name))
            }
            (None, _) => self.fail("has takes a member, such as has(variables.LANG)"),
        }
    }
}

/// A chain, or its only link.
fn one(mut all: Vec<Expression>, chain: fn(Vec<Expression>) -> Expression) -> Expression {
    match all.pop() {
        Some(only) if all.is_empty() => only,
        last => chain(all.into_iter().chain(last).collect()),
    }
}
