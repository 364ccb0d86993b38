//! Shapes drawn at random.

use super::super::random::Random;
use super::list_at::{Kind, ListAt};
use super::shape::{By, Says, Shape};

impl Shape {
    /// A shape of parts that fit each other.
    pub(super) fn drawn(random: &mut Random) -> Self {
        let positions = random.one_in(5);
        let items = draw_items(random, positions);
        let (rows, is_job) = draw_rows(random, &items, positions);
        let echo = !is_job && random.one_in(3);
        let is_map = rows[0].kind == Kind::Map;
        let by = draw_by(random, (positions, is_job || is_map, rows.len() > 1));
        // An index of the array that was sent means nothing in a single row.
        let all_issued = is_job
            || !rows[0].is_root()
                && rows[0].kind != Kind::Single
                && !by.contains(&By::Position)
                && random.one_in(3);
        let says = [Says::Count, Says::Arrays, Says::CountAndArrays, Says::Code];
        Self {
            positions,
            batch: (positions || random.one_in(3)).then_some(["B/1", "~b"][random.below(2)]),
            quantities: random.one_in(2),
            says: says[random.below(says.len())],
            all_issued,
            filtered: !is_job && rows[0].kind == Kind::Array && random.one_in(3),
            echo,
            delta: random.one_in(5),
            requested: random.one_in(3),
            indivisible: random.one_in(4),
            templates: random.one_in(2),
            compares_few: random.one_in(4),
            items,
            rows,
            is_job,
            by,
        }
    }
}

fn draw_items(random: &mut Random, positions: bool) -> ListAt {
    let group = |kind| ListAt { outer: "/groups", inner: Some("lines"), kind };
    let all = [
        ListAt::plain("/list", Kind::Array),
        ListAt::plain("", Kind::Array),
        group(Kind::Array),
        ListAt::plain("/list", Kind::Map),
        ListAt::plain("", Kind::Map),
        group(Kind::Map),
        ListAt::plain("/item", Kind::Single),
        ListAt::plain("", Kind::Single),
    ];
    all[random.below(if positions { 3 } else { all.len() })]
}

/// The lists of rows, and whether there are none.
fn draw_rows(random: &mut Random, items: &ListAt, positions: bool) -> (Vec<ListAt>, bool) {
    if random.one_in(8) {
        return (vec![*items], true);
    }
    if items.kind == Kind::Single {
        let kind = [Kind::Single, Kind::Single, Kind::Array][random.below(3)];
        return (vec![ListAt::plain(["/row", ""][random.below(2)], kind)], false);
    }
    let kinds = if positions { 4 } else { 7 };
    let group = |kind| ListAt { outer: "/sets", inner: Some("rows"), kind };
    let rows = match random.below(kinds) {
        0 => ListAt::plain("/rows", Kind::Array),
        1 => ListAt::plain("", Kind::Array),
        2 if items.inner.is_some() => group(Kind::Array),
        2 => ListAt::plain("/rows", Kind::Array),
        4 => ListAt::plain("/rows", Kind::Map),
        5 => ListAt::plain("", Kind::Map),
        6 if items.inner.is_some() => group(Kind::Map),
        6 => ListAt::plain("/rows", Kind::Map),
        _ => {
            let two = [ListAt::plain("/good", Kind::Array), ListAt::plain("/bad", Kind::Array)];
            return (two.to_vec(), false);
        }
    };
    (vec![rows], false)
}

fn draw_by(random: &mut Random, (positions, is_none, is_two): (bool, bool, bool)) -> Vec<By> {
    use By::{Id, Index, Member, Position};
    if is_none {
        return Vec::new();
    }
    let all: &[&[By]] = &[
        &[Index],
        &[Member],
        &[Index, Member],
        &[Position],
        &[Member, Position],
        &[Id],
        &[Id, Index],
        &[Id, Member],
        &[Id, Member, Position],
    ];
    let drawn = match (positions, is_two) {
        (true, false) => all[random.below(5)],
        (true, true) => all[random.below(3)],
        (false, false) => all[random.below(all.len())],
        (false, true) => all[[0, 1, 2, 5, 6, 7][random.below(6)]],
    };
    drawn.to_vec()
}
