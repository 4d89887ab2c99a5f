//! JSON in which a member was replaced, doubled or left out.

use serde_json::{Value, json};

use crate::dice::Dice;

/// Alters something in it, or something in that. One in so many arrays and objects is itself what is replaced.
pub(crate) fn spoil(value: &mut Value, dice: &mut Dice) {
    const WHOLE: usize = 6;
    match value {
        Value::Object(members) if !members.is_empty() && !dice.one_in(WHOLE) => {
            let name = members.keys().nth(dice.below(members.len())).expect("it has some").clone();
            match dice.below(8) {
                0 => drop(members.remove(&name)),
                1 => drop(members.insert("further".into(), odd(dice))),
                2 => {
                    let member = members.remove(&name).expect("it is there");
                    members.insert(format!("{name} "), member);
                }
                _ => spoil(&mut members[&name], dice),
            }
        }
        Value::Array(elements) if !elements.is_empty() && !dice.one_in(WHOLE) => {
            let at = dice.below(elements.len());
            match dice.below(8) {
                0 => drop(elements.remove(at)),
                1 => elements.push(elements[at].clone()),
                _ => spoil(&mut elements[at], dice),
            }
        }
        _ => *value = odd(dice),
    }
}

/// The text of `value`; now and then with a member said twice, which no `Value` can hold, or behind deep brackets.
pub(crate) fn text(value: &Value, dice: &mut Dice) -> Vec<u8> {
    let mut text = value.to_string();
    if dice.one_in(32) && text.starts_with("{\"") {
        let again = text[1..].split_inclusive(['}', ']', ',']).next().unwrap_or_default().to_owned();
        text.insert_str(1, &again);
    }
    if dice.one_in(64) {
        let depth = 1 << dice.below(15);
        text = "[".repeat(depth) + &text + &"]".repeat(depth);
    }
    text.into_bytes()
}

/// A value that a careless caller might send anywhere.
fn odd(dice: &mut Dice) -> Value {
    match dice.below(22) {
        0 => json!(null),
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(1),
        5 => json!(3),
        6 => json!(u64::MAX),
        7 => json!(i64::MIN),
        8 => json!(1.5),
        9 => json!(1e300),
        10 => json!(""),
        11 => json!("x"),
        12 => json!("critical"),
        13 => json!("INT8"),
        14 => json!("fp32"),
        15 => json!([]),
        16 => json!([[]]),
        17 => json!([1, 2, 3]),
        18 => json!({}),
        19 => json!({ "priority": 9, "binary_data_size": 12 }),
        20 => json!("\u{0}\u{fffd}\u{10ffff}"),
        _ => json!("long ".repeat(1000)),
    }
}
