package ssh

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"

	"bake/step"
)

// entry is one directory or file of a tree, with its slash-separated path.
type entry struct {
	name string
	info fs.FileInfo
}

func (e entry) perm() fs.FileMode { return e.info.Mode().Perm() }

// tree lists what is in src, without its root: directories before what they
// hold. Symbolic links are followed.
func tree(src fs.FS) (dirs, files []entry, err error) {
	var walk func(dir string, above []fs.FileInfo) error
	walk = func(dir string, above []fs.FileInfo) error {
		list, err := fs.ReadDir(src, dir)
		if err != nil {
			return err
		}
		for _, d := range list {
			name := path.Join(dir, d.Name())
			info, err := fs.Stat(src, name)
			if err != nil {
				return err
			}
			switch {
			case info.IsDir():
				for _, a := range above {
					if os.SameFile(a, info) {
						return fmt.Errorf("%s is a symbolic link to a directory that holds it", name)
					}
				}
				dirs = append(dirs, entry{name, info})
				if err := walk(name, append(above, info)); err != nil {
					return err
				}
			case info.Mode().IsRegular():
				files = append(files, entry{name, info})
			default:
				return fmt.Errorf("%s is neither a file nor a directory (%s)", name, info.Mode())
			}
		}
		return nil
	}
	err = walk(".", nil)
	return dirs, files, err
}

// meter reports how much of a transfer is done.
type meter struct {
	ctx      context.Context
	scope    *step.Scope
	progress step.Progress
	reported int64
}

// meterFrom is the size from which a transfer reports its progress, and how
// often it does.
const meterFrom = 1 << 20

func newMeter(ctx context.Context, s *step.Scope, files []entry) *meter {
	m := &meter{ctx: ctx, scope: s, progress: step.Progress{Unit: "B"}}
	for _, f := range files {
		m.progress.Total += f.info.Size()
	}
	return m
}

// add counts n bytes. It is not safe for concurrent use.
func (m *meter) add(n int) {
	m.progress.Done += int64(n)
	if m.progress.Done-m.reported >= meterFrom || m.progress.Done == m.progress.Total && m.reported > 0 {
		m.reported = m.progress.Done
		m.scope.Progress(m.ctx, m.progress)
	}
}
