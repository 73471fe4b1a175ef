//! What a condition comes to.

use std::cmp::Ordering;

use super::Value;
use super::parse::{Expression, Function, Operator};
use crate::limits;

type Evaluated = Result<Value, String>;

/// The value of an expression.
pub(super) fn eval(expression: &Expression, fact: &dyn Fn(&str) -> Value) -> Evaluated {
    let of = |expression: &Expression| eval(expression, fact);
    match expression {
        Expression::Value(value) => Ok(value.clone()),
        Expression::Fact(name) => Ok(fact(name)),
        Expression::List(items) => items.iter().map(of).collect::<Result<_, _>>().map(Value::List),
        Expression::Member(base, name) => {
            let base = of(base)?;
            base.member(name).ok_or_else(|| format!("{} has no {name:?}", base.kind()))
        }
        Expression::Index(base, index) => at(&of(base)?, &of(index)?),
        Expression::Has(base, name) => match of(base)? {
            base @ (Value::Map(_) | Value::Fields(_)) => Ok(Value::Bool(base.member(name).is_some())),
            other => Err(format!("{} has no members", other.kind())),
        },
        Expression::Not(inner) => Ok(Value::Bool(!bool_of(of(inner))?)),
        Expression::Negative(inner) => match of(inner)? {
            Value::Int(number) => number.checked_neg().map(Value::Int).ok_or_else(overflow),
            other => Err(format!("- does not go with {}", other.kind())),
        },
        Expression::Binary(operator, left, right) => binary(*operator, of(left)?, of(right)?),
        Expression::And(all) => decided(all, false, &of),
        Expression::Or(all) => decided(all, true, &of),
        Expression::If(parts) => {
            let [condition, then, other] = parts.as_ref();
            if bool_of(of(condition))? { of(then) } else { of(other) }
        }
        Expression::Call(function, base, argument) => call(*function, of(base)?, of(argument)?),
        Expression::Matches(base, regex) => match of(base)? {
            Value::Text(text) => Ok(Value::Bool(regex.is_match(&text))),
            other => Err(format!("matches does not go with {}", other.kind())),
        },
    }
}

/// `&&` is decided by one that is false, `||` by one that is true, whatever is wrong with the others.
fn decided(all: &[Expression], by: bool, of: &dyn Fn(&Expression) -> Evaluated) -> Evaluated {
    let mut fault = None;
    for expression in all {
        match bool_of(of(expression)) {
            Ok(value) if value == by => return Ok(Value::Bool(by)),
            Ok(_) => {}
            Err(why) => fault = fault.or(Some(why)),
        }
    }
    fault.map_or(Ok(Value::Bool(!by)), Err)
}

fn bool_of(value: Evaluated) -> Result<bool, String> {
    match value? {
        Value::Bool(value) => Ok(value),
        other => Err(format!("{} is neither true nor false", other.kind())),
    }
}

fn overflow() -> String {
    "the number is too large".to_owned()
}

fn at(base: &Value, index: &Value) -> Evaluated {
    match (base, index) {
        (Value::List(list), Value::Int(index)) => {
            let found = usize::try_from(*index).ok().and_then(|index| list.get(index));
            found.cloned().ok_or_else(|| format!("the list has no item {index}"))
        }
        (Value::Map(_) | Value::Fields(_), Value::Text(name)) => {
            base.member(name).ok_or_else(|| format!("there is no {name:?}"))
        }
        _ => Err(format!("{} has no place {}", base.kind(), index.kind())),
    }
}

fn binary(operator: Operator, left: Value, right: Value) -> Evaluated {
    use Operator::{
        Add, Divide, Equal, In, Less, LessOrEqual, More, MoreOrEqual, Multiply, Remainder, Subtract, Unequal,
    };
    let wrong = |left: &Value, right: &Value| Err(format!("{} does not go with {}", left.kind(), right.kind()));
    match (operator, left, right) {
        (Equal, left, right) => Ok(Value::Bool(left == right)),
        (Unequal, left, right) => Ok(Value::Bool(left != right)),
        (In, left, Value::List(list)) => Ok(Value::Bool(list.contains(&left))),
        (In, Value::Text(name), map @ (Value::Map(_) | Value::Fields(_))) => {
            Ok(Value::Bool(map.member(&name).is_some()))
        }
        (operator @ (Less | LessOrEqual | More | MoreOrEqual), left, right) => {
            let order = match (&left, &right) {
                (Value::Int(left), Value::Int(right)) => left.cmp(right),
                (Value::Text(left), Value::Text(right)) => left.cmp(right),
                (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
                _ => return wrong(&left, &right),
            };
            Ok(Value::Bool(match operator {
                Less => order == Ordering::Less,
                LessOrEqual => order != Ordering::Greater,
                More => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
        (Add, Value::Text(left), Value::Text(right)) => {
            if left.len() + right.len() > limits::EXPANDED {
                return Err("the text is too long".to_owned());
            }
            Ok(Value::Text(left + &right))
        }
        (operator, Value::Int(left), Value::Int(right)) => {
            let number = match operator {
                Add => left.checked_add(right),
                Subtract => left.checked_sub(right),
                Multiply => left.checked_mul(right),
                Divide | Remainder if right == 0 => return Err("a division by zero".to_owned()),
                Divide => left.checked_div(right),
                _ => left.checked_rem(right),
            };
            number.map(Value::Int).ok_or_else(overflow)
        }
        (_, left, right) => wrong(&left, &right),
    }
}

fn call(function: Function, base: Value, argument: Value) -> Evaluated {
    let wrong = |base: &Value| Err(format!("{function:?} does not go with {}", base.kind()));
    match (function, &base, &argument) {
        (Function::StartsWith, Value::Text(text), Value::Text(part)) => Ok(Value::Bool(text.starts_with(part))),
        (Function::EndsWith, Value::Text(text), Value::Text(part)) => Ok(Value::Bool(text.ends_with(part))),
        (Function::Contains, Value::Text(text), Value::Text(part)) => Ok(Value::Bool(text.contains(part))),
        (Function::Size, base, _) => base.size().map_or_else(|| wrong(base), |size| Ok(Value::Int(size))),
        (Function::Int, Value::Int(number), _) => Ok(Value::Int(*number)),
        (Function::Int, Value::Text(text), _) => {
            text.parse().map(Value::Int).map_err(|_| format!("{text:?} is no whole number"))
        }
        (Function::Text, Value::Text(text), _) => Ok(Value::Text(text.clone())),
        (Function::Text, Value::Int(number), _) => Ok(Value::Text(number.to_string())),
        (Function::Text, Value::Bool(value), _) => Ok(Value::Text(value.to_string())),
        _ => wrong(&base),
    }
}
