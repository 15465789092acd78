//! Name and type resolution: from the parse tree to the bound tree.

pub mod names;
