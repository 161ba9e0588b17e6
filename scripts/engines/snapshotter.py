"""A proxy snapshotter for containerd that answers the mounts of fuse-overlayfs.

usage: python snapshotter.py ROOT SOCKET

Serves containerd.services.snapshots.v1 on the UNIX socket SOCKET and keeps the
snapshots in ROOT/snapshots/ID/{fs,work}. The list of snapshots is in memory:
the program serves one run of the tests. The modules snapshots_pb2 and
snapshots_pb2_grpc are made from snapshots.proto by grpc_tools.protoc.

Each call is one line on standard output: the method, the key, the parent and
the labels.

The mounts are those of containerd's fuse-overlayfs snapshotter: a bind mount
of the directory when there is no parent, a read-only bind mount for a view of
one layer, and otherwise a mount of type fuse3.fuse-overlayfs.
"""

import os
import shutil
import sys
import threading
from concurrent import futures

import grpc
import snapshots_pb2 as pb
import snapshots_pb2_grpc as service
from google.protobuf.empty_pb2 import Empty

MAPPINGS = {
    "uidmapping": "containerd.io/snapshot/uidmapping",
    "gidmapping": "containerd.io/snapshot/gidmapping",
}


def disk_usage(path):
    """Returns the bytes allocated below `path` and the number of inodes."""
    seen = set()
    size = 0
    for directory, names, files in os.walk(path):
        for name in [".", *files, *(n for n in names if os.path.islink(os.path.join(directory, n)))]:
            status = os.lstat(os.path.join(directory, name))
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                size += status.st_blocks * 512
    return size, len(seen)


class Snapshot:
    """One snapshot: its public record, its directory and its usage."""

    def __init__(self, info, directory):
        self.info = info
        self.directory = directory
        self.usage = None

    @property
    def fs(self):
        return os.path.join(self.directory, "fs")


class Snapshotter(service.SnapshotsServicer):
    def __init__(self, root):
        self.root = os.path.join(root, "snapshots")
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        self.lock = threading.Lock()
        self.snapshots = {}
        self.last = 0

    def find(self, key, context):
        if key not in self.snapshots:
            context.abort(grpc.StatusCode.NOT_FOUND, f"snapshot {key} does not exist")
        return self.snapshots[key]

    def create(self, kind, request, context):
        with self.lock:
            if request.key in self.snapshots:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, f"snapshot {request.key} exists")
            parent = None
            if request.parent:
                parent = self.find(request.parent, context)
                if parent.info.kind != pb.COMMITTED:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{request.parent} is not committed")
            self.last += 1
            directory = os.path.join(self.root, str(self.last))
            os.mkdir(directory, 0o700)
            os.mkdir(os.path.join(directory, "fs"), 0o755)
            if kind == pb.ACTIVE:
                os.mkdir(os.path.join(directory, "work"), 0o711)
            if parent:
                status = os.stat(parent.fs)
                os.chown(os.path.join(directory, "fs"), status.st_uid, status.st_gid)
            info = pb.Info(name=request.key, parent=request.parent, kind=kind, labels=request.labels)
            info.created_at.GetCurrentTime()
            info.updated_at.GetCurrentTime()
            snapshot = Snapshot(info, directory)
            self.snapshots[request.key] = snapshot
            return self.mounts(snapshot)

    def mounts(self, snapshot):
        """Returns the mounts of one active snapshot or view."""
        active = snapshot.info.kind == pb.ACTIVE
        lowers = []
        parent = snapshot.info.parent
        while parent:
            lowers.append(self.snapshots[parent].fs)
            parent = self.snapshots[parent].info.parent
        if not lowers:
            return bind(snapshot.fs, "rw" if active else "ro")
        if not active and len(lowers) == 1:
            return bind(lowers[0], "ro")
        options = []
        if active:
            options += [f"workdir={snapshot.directory}/work", f"upperdir={snapshot.fs}"]
        options.append("lowerdir=" + ":".join(lowers))
        for option, label in MAPPINGS.items():
            if label in snapshot.info.labels:
                options.append(f"{option}={snapshot.info.labels[label].replace(',', ':')}")
        mount = pb.Mount(type="fuse3.fuse-overlayfs", source="overlay", options=options)
        return pb.MountList(mounts=[mount])

    def Prepare(self, request, context):
        return self.create(pb.ACTIVE, request, context)

    def View(self, request, context):
        return self.create(pb.VIEW, request, context)

    def Mounts(self, request, context):
        with self.lock:
            return self.mounts(self.find(request.key, context))

    def Commit(self, request, context):
        with self.lock:
            if request.name in self.snapshots:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, f"snapshot {request.name} exists")
            snapshot = self.find(request.key, context)
            if snapshot.info.kind != pb.ACTIVE:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{request.key} is not active")
            snapshot.usage = disk_usage(snapshot.fs)
            snapshot.info.name = request.name
            snapshot.info.kind = pb.COMMITTED
            snapshot.info.labels.update(request.labels)
            snapshot.info.updated_at.GetCurrentTime()
            self.snapshots[request.name] = self.snapshots.pop(request.key)
            return Empty()

    def Remove(self, request, context):
        with self.lock:
            self.find(request.key, context)
            if any(s.info.parent == request.key for s in self.snapshots.values()):
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{request.key} has children")
            del self.snapshots[request.key]
            return Empty()

    def Cleanup(self, request, context):
        # Removal of the directories waits for this call, as in the original.
        with self.lock:
            known = {os.path.basename(s.directory) for s in self.snapshots.values()}
            for name in set(os.listdir(self.root)) - known:
                shutil.rmtree(os.path.join(self.root, name))
            return Empty()

    def Stat(self, request, context):
        with self.lock:
            return pb.OneInfo(info=self.find(request.key, context).info)

    def Update(self, request, context):
        with self.lock:
            info = self.find(request.info.name, context).info
            paths = request.update_mask.paths or ["labels"]
            for path in paths:
                if path == "labels":
                    info.labels.clear()
                    info.labels.update(request.info.labels)
                elif path.startswith("labels."):
                    info.labels[path[len("labels.") :]] = request.info.labels[path[len("labels.") :]]
                else:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{path} cannot be changed")
            info.updated_at.GetCurrentTime()
            return pb.OneInfo(info=info)

    def List(self, request, context):
        with self.lock:
            infos = [s.info for s in self.snapshots.values()]
        yield pb.Infos(info=infos)

    def Usage(self, request, context):
        with self.lock:
            snapshot = self.find(request.key, context)
            size, inodes = snapshot.usage or disk_usage(snapshot.fs)
            return pb.Amount(size=size, inodes=inodes)


class CallLog(grpc.ServerInterceptor):
    """Prints one line for each call."""

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        method = details.method.rpartition("/")[2]

        def call(request, context):
            words = [method, getattr(request, "key", ""), getattr(request, "parent", "")]
            words += [f"{k}={v}" for k, v in sorted(getattr(request, "labels", {}).items())]
            print(" ".join(filter(None, words)), flush=True)
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            call, handler.request_deserializer, handler.response_serializer
        )


def bind(path, access):
    return pb.MountList(mounts=[pb.Mount(type="bind", source=path, options=[access, "rbind"])])


def main():
    root, socket = sys.argv[1:]
    os.umask(0)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), interceptors=[CallLog()])
    service.add_SnapshotsServicer_to_server(Snapshotter(root), server)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
