//! Lists of items and of rows in a body: their places, their texts and their reading.

use serde_json::Value;

/// A list of items or rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListAt {
    /// Pointer to the list, or to the array of the groups.
    pub(super) outer: &'static str,
    /// The list's member of a group.
    pub(super) inner: Option<&'static str>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Array,
    Map,
    Single,
}

impl ListAt {
    pub(super) const fn plain(outer: &'static str, kind: Kind) -> Self {
        Self { outer, inner: None, kind }
    }

    pub(super) fn path(&self) -> String {
        match self.inner {
            None => self.outer.to_owned(),
            Some(inner) => format!("{}/*/{inner}", self.outer),
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.outer.is_empty()
    }

    /// The names, if any, and values of the list in a body; `None`: there is none.
    pub(super) fn read(&self, body: &Value) -> Option<Vec<(Option<String>, Value)>> {
        let outer = body.pointer(self.outer).filter(|list| !list.is_null())?;
        let lists: Vec<&Value> = match self.inner {
            None => vec![outer],
            Some(inner) => outer.as_array()?.iter().filter_map(|group| group.get(inner)).collect(),
        };
        let mut found = Vec::new();
        for list in lists {
            match self.kind {
                Kind::Array => found.extend(list.as_array()?.iter().map(|it| (None, it.clone()))),
                Kind::Map => found.extend(
                    list.as_object()?.iter().map(|(name, it)| (Some(name.clone()), it.clone())),
                ),
                Kind::Single => found.push((None, list.clone())),
            }
        }
        Some(found)
    }

    /// The text of the value at `outer`: these texts of elements or of members with their names,
    /// each in the group of this number.
    pub(super) fn text(&self, elements: &[(usize, String)], around: &str) -> String {
        let list = |group: Option<usize>| {
            let inside = elements.iter().filter(|it| group.is_none_or(|group| it.0 == group));
            let inside: Vec<&str> = inside.map(|it| it.1.as_str()).collect();
            let inside = inside.join(", ");
            match self.kind {
                Kind::Array => format!("[{inside}]"),
                Kind::Map => format!("{{{inside}}}"),
                Kind::Single => inside,
            }
        };
        let Some(inner) = self.inner else { return list(None) };
        let mut groups: Vec<usize> = elements.iter().map(|it| it.0).collect();
        groups.sort_unstable();
        groups.dedup();
        let group =
            |group| format!("{{\"set\":{group},\"{inner}\":{}{around}}}", list(Some(group)));
        let groups: Vec<String> = groups.into_iter().map(group).collect();
        format!("[{}]", groups.join(","))
    }
}
