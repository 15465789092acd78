//! The tree against a `BTreeMap`: random edits, snapshots, checkpoints, reloads, diffs.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::chunk::MemoryChunks;
use crate::value::Physical;

type Model = BTreeMap<Vec<u8>, Row>;

/// Chunks of a store that has hardly any memory for nodes.
#[derive(Debug)]
struct SmallMemory {
    chunks: MemoryChunks,
    cache: Arc<NodeCache>,
}

impl ChunkReader for SmallMemory {
    fn read(&self, address: &ChunkAddress) -> Result<Vec<u8>> {
        self.chunks.read(address)
    }

    fn cache(&self) -> Option<&Arc<NodeCache>> {
        Some(&self.cache)
    }

    fn writer(&self) -> Option<Box<dyn ChunkWriter + '_>> {
        Some(Box::new(&self.chunks))
    }
}

fn layout() -> Arc<Layout> {
    Layout::new(vec![Physical::Int4, Physical::Bytes, Physical::Bool, Physical::Bytes, Physical::Uuid])
}

fn row(n: u32, salt: u32) -> Row {
    let null = |bit: u32, value: Value| if (n ^ salt) >> bit & 7 == 0 { Value::Null } else { value };
    vec![
        null(0, Value::Int4((n * 7 + salt) as i32)),
        null(3, Value::bytes(vec![b'x'; ((n + salt) % 40) as usize])),
        null(1, Value::Bool(n.is_multiple_of(2))),
        null(5, Value::bytes(format!("value {salt}"))),
        null(2, Value::Uuid([n as u8; 16])),
    ]
}

/// Keys of differing length in one half of the range.
fn key(n: u32) -> Vec<u8> {
    if n.is_multiple_of(2) { n.to_be_bytes().to_vec() } else { [&n.to_be_bytes()[..], &b"odd"[..]].concat() }
}

fn contents(tree: &Tree) -> Vec<(Vec<u8>, Row)> {
    let mut cursor = tree.scan((Bound::Unbounded, Bound::Unbounded), false);
    std::iter::from_fn(|| cursor.next_row().unwrap()).collect()
}

fn check(tree: &Tree, model: &Model) {
    assert_eq!(tree.len(), model.len() as u64);
    assert_eq!(contents(tree), model.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>());
    tree.verify().unwrap();
}

fn build(model: &Model, target: u32) -> Tree {
    let mut builder = TreeBuilder::new(layout(), target, None);
    for (key, row) in model {
        assert!(builder.push(key, row).unwrap());
    }
    builder.finish().unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32, u32),
    Update(u32, u16, u32),
    Delete(u32),
    DeleteRun(u32, u32),
    InsertRun(u32, u32),
    Snapshot,
    Normalise,
    Write,
    Reload,
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..4000u32;
    prop_oneof![
        20 => (n.clone(), 0..1000u32).prop_map(|(n, s)| Op::Insert(n, s)),
        20 => (n.clone(), 0..5u16, 0..1000u32).prop_map(|(n, c, s)| Op::Update(n, c, s)),
        15 => n.clone().prop_map(Op::Delete),
        4 => (n.clone(), 1..400u32).prop_map(|(n, c)| Op::DeleteRun(n, c)),
        8 => (n, 1..400u32).prop_map(|(n, c)| Op::InsertRun(n, c)),
        2 => Just(Op::Snapshot),
        2 => Just(Op::Normalise),
        2 => Just(Op::Write),
        2 => Just(Op::Reload),
        4 => Just(Op::Release),
    ]
}

fn insert(tree: &mut Tree, model: &mut Model, n: u32, salt: u32) {
    let added = tree.insert(&key(n), &row(n, salt)).unwrap();
    assert_eq!(added, !model.contains_key(&key(n)));
    model.entry(key(n)).or_insert_with(|| row(n, salt));
}

fn delete(tree: &mut Tree, model: &mut Model, n: u32) {
    assert_eq!(tree.delete(&key(n)).unwrap(), model.remove(&key(n)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_tree_behaves_like_a_btreemap_and_its_shape_does_not_depend_on_the_order_of_edits(ops in prop::collection::vec(op(), 1..120)) {
        // A few leaves fit.
        let small = Arc::new(SmallMemory { chunks: MemoryChunks::default(), cache: NodeCache::new(10_000) });
        let (chunks, reader): (&MemoryChunks, Arc<dyn ChunkReader>) = (&small.chunks, small.clone());
        let mut tree = Tree::with_target(layout(), 16);
        tree.source.reader = Some(reader.clone());
        let mut model = Model::new();
        let mut snapshots = vec![(tree.clone(), model.clone())];
        for op in ops {
            match op {
                Op::Insert(n, salt) => insert(&mut tree, &mut model, n, salt),
                Op::InsertRun(n, count) => (n..n + count).for_each(|n| insert(&mut tree, &mut model, n, 1)),
                Op::Delete(n) => delete(&mut tree, &mut model, n),
                Op::DeleteRun(n, count) => (n..n + count).for_each(|n| delete(&mut tree, &mut model, n)),
                Op::Update(n, column, salt) => {
                    let value = row(n ^ 5, salt)[usize::from(column)].clone();
                    let mut changed = Vec::new();
                    let found = tree.update(&key(n), &[(column, value.clone())], &[], &mut changed).unwrap() == Updated::Done;
                    let stored = model.get_mut(&key(n));
                    assert_eq!(found, stored.is_some());
                    if let Some(stored) = stored {
                        let old = std::mem::replace(&mut stored[usize::from(column)], value.clone());
                        assert_eq!(changed, if old == value { vec![] } else { vec![(column, old, value)] });
                    }
                }
                Op::Snapshot => snapshots.push((tree.clone(), model.clone())),
                Op::Normalise => {
                    tree.normalise().unwrap();
                    check(&tree, &model);
                }
                Op::Write => { tree.write(&mut { chunks }).unwrap(); }
                Op::Release => {
                    tree.release();
                    small.cache.make_room();
                }
                Op::Reload => {
                    if let Some(address) = tree.write(&mut { chunks }).unwrap() {
                        tree = Tree::open(address, layout(), reader.clone()).unwrap();
                    }
                }
            }
        }
        check(&tree, &model);
        for (key, row) in model.iter().step_by(7) {
            assert_eq!(tree.get(key).unwrap().as_ref(), Some(row));
        }
        snapshots.push((tree.clone(), model.clone()));
        for (tree, model) in &mut snapshots {
            check(tree, model);
            // The same rows built in order give the same nodes.
            let address = tree.write(&mut { chunks }).unwrap();
            // (One that was empty in between is aimed at what its layout suggests.)
            prop_assert_eq!(address, build(model, tree.rule.target).write(&mut { chunks }).unwrap());
            check(tree, model);
        }
        for pair in snapshots.windows(2) {
            let ((a, before), (b, after)) = (&pair[0], &pair[1]);
            let mut patched = before.clone();
            for difference in a.diff(b) {
                let difference = difference.unwrap();
                let key = difference.key().to_vec();
                let of = |side: &Option<(Arc<Leaf>, usize)>| side.as_ref().map(|(leaf, row)| leaf.row(*row));
                prop_assert_eq!(of(&difference.from), before.get(&key).cloned());
                prop_assert_ne!(of(&difference.from), of(&difference.to));
                match of(&difference.to) {
                    Some(row) => patched.insert(key, row),
                    None => patched.remove(&key),
                };
            }
            prop_assert_eq!(&patched, after);
        }
        drop((snapshots, tree));
        prop_assert_eq!((small.cache.resident(), small.cache.held()), (0, 0));
    }

    #[test]
    fn ranges_scan_as_in_a_btreemap(keys in prop::collection::btree_set(0..3000u32, 0..800), low in 0..3000u32, span in 0..2000u32, how in 0..8u8) {
        let model: Model = keys.iter().map(|&n| (key(n), row(n, 3))).collect();
        let tree = build(&model, 16);
        let bound = |n: u32, excluded: bool| if excluded { Bound::Excluded(key(n)) } else { Bound::Included(key(n)) };
        let range = (bound(low, how & 1 != 0), if how & 4 != 0 { Bound::Unbounded } else { bound(low + span + 1, how & 2 != 0) });
        let expected: Vec<_> = model.range(range.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
        for reverse in [false, true] {
            let mut cursor = tree.scan(range.clone(), reverse);
            let mut found: Vec<_> = std::iter::from_fn(|| cursor.next_row().unwrap()).collect();
            if reverse {
                found.reverse();
            }
            prop_assert_eq!(&found, &expected);
        }
    }

    #[test]
    fn decoding_refuses_or_accepts_damaged_chunks_without_panicking(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()) {
        let model: Model = (0..40).map(|n| (key(n), row(n, 3))).collect();
        let tree = build(&model, 64);
        let (leaf, _) = tree.find(&key(3)).unwrap().unwrap();
        let mut bytes = leaf.encode().into_owned();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        let address = ChunkAddress::of(&bytes);
        if let Ok(leaf) = Leaf::decode(bytes.clone(), &layout(), None, &address) {
            for row in 0..leaf.row_count() {
                leaf.row(row);
            }
            leaf.verify();
        }
        let at = cut.index(bytes.len());
        let _ = Leaf::decode(bytes[..at].to_vec(), &layout(), None, &address);
        let _ = node::Inner::decode(&bytes[at..], None, &address);
    }
}

#[test]
fn a_diff_reads_only_what_differs() {
    #[derive(Debug)]
    struct Counting(Arc<MemoryChunks>, std::sync::atomic::AtomicUsize);
    impl ChunkReader for Counting {
        fn read(&self, address: &ChunkAddress) -> Result<Vec<u8>> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.read(address)
        }
    }
    let chunks = Arc::new(MemoryChunks::default());
    let model: Model = (0..20_000).map(|n| (key(n), row(n, 3))).collect();
    let before = build(&model, 16).write(&mut &*chunks).unwrap().unwrap();
    let reader = Arc::new(Counting(chunks.clone(), Default::default()));
    let mut tree = Tree::open(before, layout(), reader.clone()).unwrap();
    assert!(tree.delete(&key(9_999)).unwrap().is_some());
    assert!(tree.insert(&key(30_000), &row(1, 1)).unwrap());
    let after = tree.write(&mut &*chunks).unwrap().unwrap();
    let (a, b) = (Tree::open(before, layout(), reader.clone()).unwrap(), Tree::open(after, layout(), reader.clone()).unwrap());
    reader.1.store(0, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(a.diff(&b).count(), 2);
    let read = reader.1.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read < 40, "{read} chunks read");
}

#[test]
fn an_edit_of_a_written_tree_rewrites_one_path() {
    let chunks = Arc::new(MemoryChunks::default());
    let model: Model = (0..20_000).map(|n| (key(n), row(n, 3))).collect();
    let mut tree = build(&model, 16);
    tree.write(&mut &*chunks).unwrap();
    let (nodes, size) = (chunks.len(), tree.verify().unwrap());
    assert_eq!(size.rows, 20_000);
    assert_eq!(tree.update(&key(500), &[(0, Value::Int4(-1))], &[], &mut Vec::new()).unwrap(), Updated::Done);
    tree.write(&mut &*chunks).unwrap();
    assert!(chunks.len() - nodes <= 4, "{} nodes written", chunks.len() - nodes);
}

#[test]
fn a_diff_of_large_leaves_finds_each_row_that_differs_and_no_other() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let width = if seed % 2 == 0 { 2 } else { 1 };
        let before: Model = (0..3000).map(|n| (key(n * width), row(n, 3))).collect();
        let mut after = before.clone();
        // From a row here and there to more than there are.
        for _ in 0..1 << random.random_range(0..13) {
            let n = random.random_range(0..3000u32);
            match random.random_range(0..10) {
                0 => drop(after.remove(&key(n * width))),
                1 => drop(after.insert(key(n * width + 2 - width), row(n, 4))),
                column => {
                    if let Some(row_there) = after.get_mut(&key(n * width)) {
                        let salt = random.random_range(0..30);
                        row_there[column % 5] = row(n, salt)[column % 5].clone();
                    }
                }
            }
        }
        // Leaves of different sizes on the two sides, and of the same.
        let (a, b) = (build(&before, 512), build(&after, if seed % 3 == 0 { 200 } else { 512 }));
        let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let expected: Vec<_> = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect();
        let found: Vec<_> = a.diff(&b).map(Result::unwrap).collect();
        assert_eq!(found.iter().map(|d| d.key().to_vec()).collect::<Vec<_>>(), expected, "seed {seed}");
        for difference in found {
            let of = |side: &Option<(Arc<Leaf>, usize)>| side.as_ref().map(|(leaf, row)| leaf.row(*row));
            assert_eq!(of(&difference.from).as_ref(), before.get(difference.key()));
            assert_eq!(of(&difference.to).as_ref(), after.get(difference.key()));
        }
    }
}
