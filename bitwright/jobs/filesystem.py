"""SQLite's locks are not safe on network filesystems (sqlite.org/howtocorrupt section 2.1): they are refused."""

from __future__ import annotations

from pathlib import Path

from bitwright.core.errors import InvalidSetting

#: Filesystem types, as /proc/self/mountinfo names them, that live on another host.
NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "ceph", "glusterfs", "lustre", "gpfs"),
        *("beegfs", "orangefs", "davfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"),
        *("fuse.ceph", "fuse.davfs2"),
    }
)


def refuse_network_filesystem(folder: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Raises InvalidSetting when `folder` lies on a network filesystem; does nothing where mounts cannot be listed."""
    kind = filesystem_type(folder, mountinfo)
    if kind in NETWORK:
        raise InvalidSetting(
            f"the state folder {folder} lies on a network filesystem",
            expected="a local disk (SQLite's locks fail over the network)",
            got=kind,
            hint="set BITWRIGHT_STATE_DIR to a local folder, or BITWRIGHT_DATABASE_URL to PostgreSQL",
        )


def filesystem_type(folder: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Type of the mount that holds `folder`; None when unknown. Format: proc_pid_mountinfo(5)."""
    if not mountinfo.exists():
        return None
    wanted = folder.resolve()
    best: tuple[int, str] | None = None
    for line in mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split(" ")[4].encode().decode("unicode_escape"))
        depth = len(point.parts)
        if (wanted == point or point in wanted.parents) and (best is None or depth >= best[0]):
            best = (depth, right.split(" ")[0])
    return best[1] if best else None
