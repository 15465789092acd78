//! What the binder knows of a type: its category, its base, its element, its name in errors. Built-in types come from the
//! exported pg_type, the user's from the catalog that the statement sees.

use std::sync::Arc;

use strandline_storage::schema::{TypeDefinition, UserType};
use strandline_storage::{DataType, Kind};

use super::names::Names;
use crate::catalog_data::catalog;
use crate::system::identifier::quote_identifier;
use crate::types::{Oid, SqlType, oid};

/// Categories of pg_type.typcategory that rules name.
pub(super) mod category {
    pub const ARRAY: u8 = b'A';
    pub const STRING: u8 = b'S';
}

pub(super) mod pseudo {
    pub const ANY: u32 = 2276;
    pub const ANYARRAY: u32 = 2277;
    pub const ANYELEMENT: u32 = 2283;
    pub const ANYNONARRAY: u32 = 2776;
    pub const ANYENUM: u32 = 3500;
    pub const ANYRANGE: u32 = 3831;
    pub const ANYMULTIRANGE: u32 = 4537;
    pub const ANYCOMPATIBLE: u32 = 5077;
    pub const ANYCOMPATIBLEARRAY: u32 = 5078;
    pub const ANYCOMPATIBLENONARRAY: u32 = 5079;
    pub const ANYCOMPATIBLERANGE: u32 = 5080;
    pub const ANYCOMPATIBLEMULTIRANGE: u32 = 4538;
    pub const RECORD_ARRAY: u32 = 2287;

    pub fn is_simple_family(oid: u32) -> bool {
        matches!(oid, ANYELEMENT | ANYARRAY | ANYNONARRAY | ANYENUM | ANYRANGE | ANYMULTIRANGE)
    }

    pub fn is_compatible_family(oid: u32) -> bool {
        matches!(oid, ANYCOMPATIBLE | ANYCOMPATIBLEARRAY | ANYCOMPATIBLENONARRAY | ANYCOMPATIBLERANGE | ANYCOMPATIBLEMULTIRANGE)
    }

    pub fn is_polymorphic(oid: u32) -> bool {
        is_simple_family(oid) || is_compatible_family(oid)
    }
}

/// Questions about types, answered from the built-in catalog and the statement's.
#[derive(Clone, Copy)]
pub struct TypeSystem<'a> {
    names: &'a dyn Names,
}

impl<'a> TypeSystem<'a> {
    pub fn new(names: &'a dyn Names) -> Self {
        TypeSystem { names }
    }

    fn user(&self, oid: Oid) -> Option<Arc<UserType>> {
        if catalog().type_by_oid(oid).is_some() { None } else { self.names.user_type_by_oid(oid) }
    }

    /// The type under a domain, with the domain's modifier; any other type itself.
    pub fn base(&self, ty: SqlType) -> SqlType {
        let mut ty = ty;
        // A chain of domains ends; the bound guards against a damaged catalog.
        for _ in 0..32 {
            match self.user(ty.oid).as_deref() {
                Some(UserType { oid, definition: TypeDefinition::Domain { base, .. }, .. }) if *oid == ty.oid => {
                    ty = SqlType { oid: base.oid, typmod: base.typmod };
                }
                _ => break,
            }
        }
        ty
    }

    pub fn base_oid(&self, oid: Oid) -> Oid {
        self.base(SqlType::new(oid)).oid
    }

    pub fn is_domain(&self, oid: Oid) -> bool {
        self.base_oid(oid) != oid
    }

    /// pg_type's category and whether the type is preferred in it.
    pub fn category(&self, oid: Oid) -> (u8, bool) {
        if let Some(row) = catalog().type_by_oid(oid) {
            return (row.category, row.preferred);
        }
        match self.user(oid) {
            Some(user) if user.array_oid == oid => (category::ARRAY, false),
            Some(user) => match &user.definition {
                TypeDefinition::Enum(_) => (b'E', false),
                TypeDefinition::Domain { base, .. } => (self.category(base.oid).0, false),
                TypeDefinition::Composite(_) => (b'C', false),
                TypeDefinition::Opaque => (b'U', false),
            },
            None => (b'U', false),
        }
    }

    /// The element type of a true array.
    pub fn element(&self, oid: Oid) -> Option<Oid> {
        if let Some(row) = catalog().type_by_oid(oid) {
            return row.is_true_array().then_some(row.element);
        }
        self.user(oid).filter(|user| user.array_oid == oid).map(|user| user.oid)
    }

    /// The element type that subscripts of this type give: true arrays, int2vector, oidvector.
    pub fn subscript_element(&self, oid: Oid) -> Option<Oid> {
        match oid {
            oid::INT2VECTOR => Some(oid::INT2),
            oid::OIDVECTOR => Some(oid::OID),
            _ => self.element(self.base_oid(oid)),
        }
    }

    pub fn array_of(&self, oid: Oid) -> Option<Oid> {
        if let Some(row) = catalog().type_by_oid(oid) {
            return (row.array != 0).then_some(row.array);
        }
        self.user(oid).filter(|user| user.oid == oid).map(|user| user.array_oid)
    }

    pub fn is_enum(&self, oid: Oid) -> bool {
        matches!(self.user(oid).as_deref(), Some(UserType { oid: own, definition: TypeDefinition::Enum(_), .. }) if *own == oid)
    }

    pub fn enum_labels(&self, oid: Oid) -> Option<Arc<UserType>> {
        self.user(oid).filter(|user| user.oid == oid && matches!(user.definition, TypeDefinition::Enum(_)))
    }

    pub fn user_type(&self, oid: Oid) -> Option<Arc<UserType>> {
        self.user(oid)
    }

    pub fn is_composite(&self, oid: Oid) -> bool {
        self.fields(oid).is_some()
    }

    /// The fields of a composite type or a table's row type.
    pub fn fields(&self, oid: Oid) -> Option<Vec<(String, SqlType)>> {
        if catalog().type_by_oid(oid).is_some() {
            return None;
        }
        match self.user(oid).as_deref() {
            Some(UserType { definition: TypeDefinition::Composite(fields), .. }) => {
                Some(fields.iter().map(|(name, ty)| (name.clone(), SqlType { oid: ty.oid, typmod: ty.typmod })).collect())
            }
            Some(_) => None,
            None => self.names.row_type(oid),
        }
    }

    /// The subtype of a range type.
    pub fn range_subtype(&self, oid: Oid) -> Option<Oid> {
        catalog().ranges.iter().find(|r| r.range == oid).map(|r| r.subtype)
    }

    pub fn multirange_of(&self, range: Oid) -> Option<Oid> {
        catalog().ranges.iter().find(|r| r.range == range).map(|r| r.multirange)
    }

    pub fn range_of_multirange(&self, multirange: Oid) -> Option<Oid> {
        catalog().ranges.iter().find(|r| r.multirange == multirange).map(|r| r.range)
    }

    /// As `format_type(oid, NULL)` prints it: the name in errors.
    pub fn name(&self, oid: Oid) -> String {
        match oid {
            oid::UNKNOWN => return "unknown".into(),
            oid::CHAR => return "\"char\"".into(),
            _ => {}
        }
        if catalog().type_by_oid(oid).is_some() {
            return self.data_type(SqlType::new(oid)).map_or_else(|| format!("type {oid}"), |ty| ty.sql_name());
        }
        match self.user(oid) {
            Some(user) if user.array_oid == oid => format!("{}[]", quote_identifier(&user.name)),
            Some(user) => quote_identifier(&user.name).into_owned(),
            None => match self.names.row_type(oid) {
                Some(_) => "record".into(),
                None => format!("type {oid}"),
            },
        }
    }

    /// How values of the type are kept and read. `None` for a type that does not exist here.
    pub fn data_type(&self, ty: SqlType) -> Option<DataType> {
        data_type(ty, self.names)
    }
}

/// The storage type behind a bound type: built-in or made by a user.
pub fn data_type(ty: SqlType, names: &dyn Names) -> Option<DataType> {
    if catalog().type_by_oid(ty.oid).is_some() {
        return DataType::builtin(ty.oid, ty.typmod);
    }
    let Some(user) = names.user_type_by_oid(ty.oid) else {
        return names.row_type(ty.oid).map(|_| DataType {
            oid: ty.oid,
            typmod: -1,
            name: "record".into(),
            kind: Kind::Other,
            element: None,
        });
    };
    let own = |typmod: i32| -> Option<DataType> {
        let (kind, element) = match &user.definition {
            TypeDefinition::Enum(_) => (Kind::Enum, None),
            TypeDefinition::Domain { base, .. } => {
                let mut base = base.clone();
                if base.typmod < 0 {
                    base.typmod = typmod;
                }
                return Some(base);
            }
            TypeDefinition::Composite(_) | TypeDefinition::Opaque => (Kind::Other, None),
        };
        Some(DataType { oid: user.oid, typmod, name: user.name.as_str().into(), kind, element })
    };
    if user.array_oid == ty.oid {
        let element = own(ty.typmod)?;
        return Some(DataType {
            oid: ty.oid,
            typmod: ty.typmod,
            name: format!("_{}", user.name).into(),
            kind: Kind::Array,
            element: Some(Arc::new(element)),
        });
    }
    own(ty.typmod)
}
