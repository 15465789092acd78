//! What is on a simulated disk: what processes see, what is durable, and what happened between the two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file or a folder, whatever its name.
pub(crate) type Node = usize;

/// The root folder, which is always there.
pub(super) const ROOT: Node = 0;

/// An operation that changes what is on the disk, or what of it is durable.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    CreateDir(PathBuf),
    CreateFile(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir(PathBuf),
    Write {
        file: Node,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetSize {
        file: Node,
        size: u64,
    },
    Sync {
        file: Node,
    },
    /// A sync that failed: the system has dropped what was to be written, and later syncs know nothing of it.
    FailedSync {
        file: Node,
    },
}

/// Everything on a disk. Applying the operations of a disk in order to what it began with gives what it holds.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub nodes: Vec<NodeContent>,
    /// Numbers the unsynced changes, so that their order over all files is known.
    next_change: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeContent {
    File(FileContent),
    Folder(FolderContent),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FileContent {
    pub now: Vec<u8>,
    pub durable: Vec<u8>,
    /// Changes since the last sync, numbered.
    pub pending: Vec<(u64, FileChange)>,
}

#[derive(Clone, Debug)]
pub(crate) enum FileChange {
    Write { offset: u64, bytes: Vec<u8> },
    SetSize(u64),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FolderContent {
    pub now: BTreeMap<String, Node>,
    pub durable: BTreeMap<String, Node>,
    /// Changes since the last sync, numbered.
    pub pending: Vec<(u64, FolderChange)>,
}

#[derive(Clone, Debug)]
pub(crate) enum FolderChange {
    Put(String, Node),
    Remove(String),
    Rename(String, String),
}

impl FileChange {
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            FileChange::Write { offset, bytes: written } => write(bytes, *offset, written),
            FileChange::SetSize(size) => bytes.resize(*size as usize, 0),
        }
    }
}

impl FolderChange {
    pub fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            FolderChange::Put(name, node) => {
                names.insert(name.clone(), *node);
            }
            FolderChange::Remove(name) => {
                names.remove(name);
            }
            FolderChange::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

pub(super) fn write(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    let end = offset as usize + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset as usize..end].copy_from_slice(written);
}

impl Default for Content {
    fn default() -> Self {
        Content { nodes: vec![NodeContent::Folder(FolderContent::default())], next_change: 0 }
    }
}

impl Content {
    /// What has this path now.
    pub fn find(&self, path: &Path) -> Option<Node> {
        path.components().filter_map(|c| if let std::path::Component::Normal(name) = c { name.to_str() } else { None }).try_fold(
            ROOT,
            |at, name| match &self.nodes[at] {
                NodeContent::Folder(folder) => folder.now.get(name).copied(),
                NodeContent::File(_) => None,
            },
        )
    }

    pub fn folder(&self, path: &Path) -> Option<&FolderContent> {
        match &self.nodes[self.find(path)?] {
            NodeContent::Folder(folder) => Some(folder),
            NodeContent::File(_) => None,
        }
    }

    pub fn file(&self, node: Node) -> &FileContent {
        match &self.nodes[node] {
            NodeContent::File(file) => file,
            NodeContent::Folder(_) => panic!("not a file"),
        }
    }

    fn file_mut(&mut self, node: Node) -> &mut FileContent {
        match &mut self.nodes[node] {
            NodeContent::File(file) => file,
            NodeContent::Folder(_) => panic!("not a file"),
        }
    }

    /// All files by path, as processes see them.
    pub fn files(&self) -> Vec<(PathBuf, Node)> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, node)) = open.pop() {
            match &self.nodes[node] {
                NodeContent::File(_) => found.push((path, node)),
                NodeContent::Folder(folder) => open.extend(folder.now.iter().map(|(name, node)| (path.join(name), *node))),
            }
        }
        found.sort();
        found
    }

    /// The bytes of all files that have a name.
    pub fn size(&self) -> u64 {
        self.files().into_iter().map(|(_, node)| self.file(node).now.len() as u64).sum()
    }

    /// Something would be lost if everything that is not synced were.
    pub fn has_unsynced(&self) -> bool {
        self.nodes.iter().any(|node| match node {
            NodeContent::File(file) => file.now != file.durable || !file.pending.is_empty(),
            NodeContent::Folder(folder) => !folder.pending.is_empty(),
        })
    }

    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::CreateDir(path) => self.put(path, NodeContent::Folder(FolderContent::default())),
            Operation::CreateFile(path) => self.put(path, NodeContent::File(FileContent::default())),
            Operation::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "only names in one folder are simulated");
                self.change_folder(from, |from| FolderChange::Rename(from, name(to)));
            }
            Operation::Remove(path) => self.change_folder(path, FolderChange::Remove),
            Operation::SyncDir(path) => {
                let node = self.find(path).expect("a folder");
                let NodeContent::Folder(folder) = &mut self.nodes[node] else { panic!("not a folder") };
                folder.durable = folder.now.clone();
                folder.pending.clear();
            }
            Operation::Write { file, offset, bytes } => {
                self.change_file(*file, FileChange::Write { offset: *offset, bytes: bytes.clone() });
            }
            Operation::SetSize { file, size } => self.change_file(*file, FileChange::SetSize(*size)),
            Operation::Sync { file } => {
                let file = self.file_mut(*file);
                // Not `now`: what a failed sync dropped does not come back.
                for (_, change) in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.durable);
                }
            }
            Operation::FailedSync { file } => self.file_mut(*file).pending.clear(),
        }
    }

    fn put(&mut self, path: &Path, content: NodeContent) {
        let node = self.nodes.len();
        self.nodes.push(content);
        self.change_folder(path, |name| FolderChange::Put(name, node));
    }

    fn change_folder(&mut self, path: &Path, change: impl FnOnce(String) -> FolderChange) {
        let parent = self.find(path.parent().expect("a path below the root")).expect("a folder above");
        let NodeContent::Folder(folder) = &mut self.nodes[parent] else { panic!("not a folder") };
        let change = change(name(path));
        change.apply(&mut folder.now);
        folder.pending.push((self.next_change, change));
        self.next_change += 1;
    }

    fn change_file(&mut self, file: Node, change: FileChange) {
        let number = self.next_change;
        self.next_change += 1;
        let file = self.file_mut(file);
        change.apply(&mut file.now);
        file.pending.push((number, change));
    }
}

fn name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
}
