//! Whole archives, read back.

use super::layer::Tree;
use super::*;
use std::collections::BTreeMap;
use std::process::Command;

fn pause(name: &str) -> Image {
    let tree = Tree::new()
        .file("pause", 0o755, "not a program")
        .directory("tmp", 0o1777)
        .symlink("bin/nc", "nc.openbsd");
    Image {
        names: vec![name.to_owned()],
        entrypoint: vec!["/pause".to_owned()],
        user: "65532:65532".to_owned(),
        layers: vec![tree.into()],
        ..Image::default()
    }
}

fn archive(image: &Image) -> (Vec<u8>, String) {
    let mut bytes = Vec::new();
    let digest = image.write_to(&mut bytes).unwrap();
    (bytes, digest)
}

/// The files of an archive, by a foreign tar.
fn unpacked(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    std::fs::write(&file, bytes).unwrap();
    let run = |args: &[&str]| {
        let out = Command::new("tar").arg("-f").arg(&file).args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    let names = String::from_utf8(run(&["-t"])).unwrap();
    names.lines().map(|name| (name.to_owned(), run(&["-xO", name]))).collect()
}

#[test]
fn the_same_content_is_the_same_bytes_in_whatever_order_it_was_put_in() {
    let name = "docker.io/library/pause:1";
    let other = Image {
        layers: vec![
            Tree::new()
                .symlink("/bin/nc", "nc.openbsd")
                .directory("tmp", 0o1777)
                .file("/pause", 0o755, "not a program")
                .into(),
        ],
        ..pause(name)
    };
    assert_eq!(archive(&pause(name)), archive(&other));
    let changed = Image { user: "0:0".to_owned(), ..pause(name) };
    assert_ne!(archive(&pause(name)).1, archive(&changed).1);
    // A name is not content.
    assert_eq!(archive(&pause(name)).1, archive(&pause("example.org/pause:2")).1);
}

#[test]
fn every_digest_of_an_archive_is_that_of_what_it_names() {
    let (bytes, digest) = archive(&pause("docker.io/library/pause:1"));
    let files = unpacked(&bytes);
    for (name, content) in files.iter().filter(|(name, _)| name.starts_with("blobs/")) {
        assert_eq!(*name, format!("blobs/sha256/{}", HEXLOWER.encode(&Sha256::digest(content))));
    }
    let read = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
    let blob = |id: &Value| format!("blobs/sha256/{}", id.as_str().unwrap().trim_start_matches("sha256:"));
    let entry = &read("index.json")["manifests"][0];
    assert_eq!(entry["digest"], digest);
    assert_eq!(
        entry["annotations"],
        json!({"io.containerd.image.name": "docker.io/library/pause:1", "org.opencontainers.image.ref.name": "1"})
    );
    let manifest = read(&blob(&entry["digest"]));
    let config = read(&blob(&manifest["config"]["digest"]));
    let layer = &manifest["layers"][0];
    assert_eq!(files[&blob(&layer["digest"])].len() as u64, layer["size"].as_u64().unwrap());
    let expected = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65532:65532"},
        // Not compressed, so that a layer's digest is that of its content.
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    assert_eq!(config, expected);
}

#[test]
fn a_name_that_no_pod_would_find_again_is_refused() {
    for bad in [
        "sealane",
        "sealane:1",
        "library/sealane:1",
        "docker.io/library/sealane",
        "localhost:5000/sealane",
        "",
    ] {
        assert!(whole(bad).is_err(), "{bad}");
    }
    for good in ["docker.io/library/sealane:0.1.0", "localhost:5000/sealane:1", "registry.example.org/a/b:c"]
    {
        whole(good).unwrap();
    }
}

#[test]
fn a_program_with_its_objects_runs_where_nothing_else_is() {
    let binary = std::env::current_exe().unwrap();
    let image = product::image(&binary, vec![product::default_name()]).unwrap();
    let root = tempfile::tempdir().unwrap();
    for layer in &image.layers {
        let mut tar = Command::new("tar")
            .arg("-x")
            .arg("-C")
            .arg(root.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&layer.to_tar().unwrap()).unwrap();
        assert!(tar.wait().unwrap().success());
    }
    // `unshare -r` lets any user change the root where the kernel allows user namespaces.
    let run = Command::new("unshare")
        .args(["-r", "chroot"])
        .arg(root.path())
        .args(["/sealane", "--list"])
        .output()
        .unwrap();
    if !run.status.success() && String::from_utf8_lossy(&run.stderr).contains("unshare") {
        return crate::skip(
            "a_program_with_its_objects_runs_where_nothing_else_is",
            "unshare -r is not allowed here",
        );
    }
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(
        String::from_utf8_lossy(&run.stdout).contains("a_program_with_its_objects"),
        "it did not list its tests"
    );
}
