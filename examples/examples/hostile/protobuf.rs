//! Messages of gRPC in which a field was replaced, doubled or left out.

use volley_examples::message::{field, little_endian, varint};

use crate::dice::Dice;

/// A message by its fields: the number of each, and its bytes.
type Fields = Vec<(usize, Vec<u8>)>;

/// A request of `ModelInfer` for one window of the bundled model, most often with something wrong in it.
pub(crate) fn inference(window: &[f32], dice: &mut Dice) -> Vec<u8> {
    let shape: Vec<u8> = [1, 50, 60].into_iter().flat_map(varint).collect();
    let mut tensor: Fields = vec![(1, b"input".to_vec()), (2, b"FP32".to_vec()), (3, shape)];
    let mut message: Fields = vec![(1, b"cnn_lstm".to_vec())];
    match dice.below(4) {
        // In its typed field, as packed binary32.
        0 => tensor.push((5, field(6, &little_endian(window)))),
        _ => message.push((7, little_endian(window))),
    }
    if dice.one_in(3) {
        let value = [&varint(2 << 3)[..], &varint(dice.below(9))].concat();
        let name = dice.pick::<[u8]>(&[b"priority", b"timeout", b"cache", b"variant", b"nothing"]);
        message.push((4, [field(1, name), field(2, &value)].concat()));
    }
    if dice.one_in(2) {
        spoil(&mut tensor, dice);
    }
    message.insert(1, (5, written(&tensor)));
    if dice.one_in(2) {
        spoil(&mut message, dice);
    }
    written(&message)
}

fn written(fields: &Fields) -> Vec<u8> {
    fields.iter().flat_map(|(number, bytes)| field(*number, bytes)).collect()
}

fn spoil(fields: &mut Fields, dice: &mut Dice) {
    let at = dice.below(fields.len());
    match dice.below(6) {
        0 => drop(fields.remove(at)),
        1 => fields.push(fields[at].clone()),
        2 => fields[at].0 = dice.below(20),
        3 => {
            let kept = dice.below(fields[at].1.len() + 1);
            fields[at].1.truncate(kept);
        }
        4 => fields[at].1.push(0x80),
        _ => {
            let count = dice.below(24);
            fields[at].1 = dice.bytes(count);
        }
    }
}
