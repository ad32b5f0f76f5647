package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// freeBytes is the room that the disk says it has.
const freeBytes = 64 << 30

// Mounted is a disk that processes can use. All I/O passes the page cache by: a
// page that is locked while this process answers must not be one that the kernel
// wants to move on this process's own behalf.
type Mounted struct {
	server *fuse.Server
	dir    string
	closed bool
}

// Mount shows the disk at dir, an empty directory, and powers it up again after
// a cut. It needs root.
func Mount(d *Disk, dir string) (*Mounted, error) {
	d.mu.Lock()
	d.dead = false
	d.mu.Unlock()
	never := time.Duration(0)
	server, err := fs.Mount(dir, &node{disk: d, inode: d.root}, &fs.Options{
		MountOptions: fuse.MountOptions{
			Name: "powercut", FsName: "powercut", DirectMountStrict: true, AllowOther: true, MaxWrite: 1 << 20,
		},
		EntryTimeout: &never, AttrTimeout: &never, NegativeTimeout: &never,
		NullPermissions: true,
		RootStableAttr:  &fs.StableAttr{Ino: d.root.number},
	})
	if err != nil {
		return nil, fmt.Errorf("mount disk: %w", err)
	}
	m := &Mounted{server: server, dir: dir}
	if err := keepFromChildren(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount disk: %w", err), m.Close())
	}
	return m, nil
}

// keepFromChildren marks this process's ends of FUSE close-on-exec, which the
// library leaves out. A daemon that inherits its own disk's end keeps it open
// when this process dies, and then waits for answers for ever, unkillable.
func keepFromChildren() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || target != "/dev/fuse" {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("list open files: %w", err)
		}
		syscall.CloseOnExec(fd)
	}
	return nil
}

// Close takes the disk away, also from processes that still have files open.
// Closing it again does nothing.
func (m *Mounted) Close() error {
	if m.closed {
		return nil
	}
	m.closed = true
	if err := syscall.Unmount(m.dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount disk: %w", err)
	}
	m.server.Wait()
	return nil
}

// node is an inode as the FUSE library knows it.
type node struct {
	fs.Inode
	disk  *Disk
	inode *inode
}

var (
	_ fs.NodeLookuper  = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeAllocater = (*node)(nil)
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeUnlinker  = (*node)(nil)
	_ fs.NodeRmdirer   = (*node)(nil)
	_ fs.NodeRenamer   = (*node)(nil)
	_ fs.NodeLinker    = (*node)(nil)
	_ fs.NodeReaddirer = (*node)(nil)
	_ fs.NodeStatfser  = (*node)(nil)
)

// do runs one operation on the disk unless the power is off.
func (n *node) do(op func() syscall.Errno) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if n.disk.dead {
		return syscall.EIO
	}
	return op()
}

// child makes the library's inode for one of ours.
func (n *node) child(ctx context.Context, i *inode, out *fuse.EntryOut) *fs.Inode {
	i.attr(&out.Attr)
	return n.NewInode(ctx, &node{disk: n.disk, inode: i}, fs.StableAttr{Mode: i.mode & syscall.S_IFMT, Ino: i.number})
}

func (n *inode) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink = n.number, n.mode, uint32(n.links)
	out.Size = uint64(len(n.live))
	out.Blocks, out.Blksize = (out.Size+511)/512, pageBytes
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (found *fs.Inode, errno syscall.Errno) {
	errno = n.do(func() syscall.Errno {
		i := n.inode.entries[name]
		if i == nil {
			return syscall.ENOENT
		}
		found = n.child(ctx, i, out)
		return 0
	})
	return found, errno
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.do(func() syscall.Errno {
		n.inode.attr(&out.Attr)
		return 0
	})
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.do(func() syscall.Errno {
		if size, ok := in.GetSize(); ok {
			n.inode.truncate(int(size))
		}
		if mode, ok := in.GetMode(); ok {
			n.inode.mode = n.inode.mode&syscall.S_IFMT | mode&0o7777
		}
		n.inode.attr(&out.Attr)
		return 0
	})
}

func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, n.do(func() syscall.Errno {
		if flags&syscall.O_TRUNC != 0 {
			n.inode.truncate(0)
		}
		return 0
	})
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, offset int64) (result fuse.ReadResult, errno syscall.Errno) {
	errno = n.do(func() syscall.Errno {
		got := 0
		if offset < int64(len(n.inode.live)) {
			got = copy(dest, n.inode.live[offset:])
		}
		result = fuse.ReadResultData(dest[:got])
		return 0
	})
	return result, errno
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, offset int64) (uint32, syscall.Errno) {
	return uint32(len(data)), n.do(func() syscall.Errno {
		n.inode.write(data, offset)
		return 0
	})
}

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return n.do(func() syscall.Errno {
		n.disk.sync(n.inode)
		return 0
	})
}

// Modes of fallocate(2).
const (
	keepSize  = 1
	punchHole = 2
	zeroRange = 16
)

func (n *node) Allocate(_ context.Context, _ fs.FileHandle, offset, size uint64, mode uint32) syscall.Errno {
	return n.do(func() syscall.Errno {
		if mode&^(keepSize|punchHole|zeroRange) != 0 {
			return syscall.EOPNOTSUPP
		}
		if mode&(punchHole|zeroRange) != 0 {
			n.inode.punch(int(offset), int(size))
		}
		if end := int(offset + size); mode&keepSize == 0 && end > len(n.inode.live) {
			n.inode.truncate(end)
		}
		return 0
	})
}

func (n *node) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (made *fs.Inode, _ fs.FileHandle, _ uint32, errno syscall.Errno) {
	errno = n.do(func() syscall.Errno {
		if n.inode.entries[name] != nil {
			return syscall.EEXIST
		}
		i := n.disk.newFile(mode)
		n.inode.enter(change{name: i})
		made = n.child(ctx, i, out)
		return 0
	})
	return made, nil, fuse.FOPEN_DIRECT_IO, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (made *fs.Inode, errno syscall.Errno) {
	errno = n.do(func() syscall.Errno {
		if n.inode.entries[name] != nil {
			return syscall.EEXIST
		}
		i := n.disk.newDir(mode)
		n.inode.enter(change{name: i})
		made = n.child(ctx, i, out)
		return 0
	})
	return made, errno
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return n.do(func() syscall.Errno {
		i := n.inode.entries[name]
		if i == nil {
			return syscall.ENOENT
		}
		i.links--
		n.inode.enter(change{name: nil})
		return 0
	})
}

func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	return n.do(func() syscall.Errno {
		i := n.inode.entries[name]
		switch {
		case i == nil:
			return syscall.ENOENT
		case len(i.entries) > 0:
			return syscall.ENOTEMPTY
		}
		n.inode.enter(change{name: nil})
		return 0
	})
}

func (n *node) Rename(_ context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return n.do(func() syscall.Errno {
		to, ok := newParent.(*node)
		i := n.inode.entries[name]
		switch {
		case !ok:
			return syscall.EXDEV
		case i == nil:
			return syscall.ENOENT
		case flags&^unixRenameNoReplace != 0:
			return syscall.EINVAL
		case flags&unixRenameNoReplace != 0 && to.inode.entries[newName] != nil:
			return syscall.EEXIST
		}
		if to.inode == n.inode {
			n.inode.enter(change{name: nil, newName: i})
			return 0
		}
		to.inode.enter(change{newName: i})
		n.inode.enter(change{name: nil})
		return 0
	})
}

// unixRenameNoReplace is RENAME_NOREPLACE of rename(2).
const unixRenameNoReplace = 1

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (made *fs.Inode, errno syscall.Errno) {
	errno = n.do(func() syscall.Errno {
		to, ok := target.(*node)
		switch {
		case !ok:
			return syscall.EXDEV
		case n.inode.entries[name] != nil:
			return syscall.EEXIST
		}
		to.inode.links++
		n.inode.enter(change{name: to.inode})
		made = n.child(ctx, to.inode, out)
		return 0
	})
	return made, errno
}

func (n *node) Readdir(context.Context) (stream fs.DirStream, errno syscall.Errno) {
	errno = n.do(func() syscall.Errno {
		list := make([]fuse.DirEntry, 0, len(n.inode.entries))
		for name, i := range n.inode.entries {
			list = append(list, fuse.DirEntry{Name: name, Mode: i.mode, Ino: i.number})
		}
		stream = fs.NewListDirStream(list)
		return 0
	})
	return stream, errno
}

func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = pageBytes, pageBytes, 255
	out.Blocks, out.Bfree, out.Bavail = 2*freeBytes/pageBytes, freeBytes/pageBytes, freeBytes/pageBytes
	return 0
}
