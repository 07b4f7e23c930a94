//! The node and its guardian are under their lists, every thread of them.

use std::fs;

use crate::scene::{Scene, status};

pub fn node_and_guardian_are_under_their_lists() {
    let mut scene = Scene::set();
    let node = scene.node.pid().as_raw_nonzero().get().unsigned_abs();
    let children = |pid: u32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks
            .map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default())
            .flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
            .collect::<Vec<u32>>()
    };
    let guardian = children(node);
    assert_eq!(guardian.len(), 1, "the node has one child");
    assert_eq!(status(guardian[0], "Name"), "leasehold-guard");
    for pid in [node, guardian[0]] {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        for task in tasks {
            let task = task.unwrap().file_name().into_string().unwrap().parse().unwrap();
            assert_eq!(status(task, "Seccomp"), "2", "thread {task} of {pid}");
            assert_eq!(status(task, "NoNewPrivs"), "1", "thread {task} of {pid}");
        }
    }
    scene.node.stop();
}
