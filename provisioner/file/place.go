package file

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"bake/builder"
	"bake/communicator"
	"bake/internal/shellquote"
	"bake/provisioner/internal/remote"
)

// attributes are the owner and mode that the upload rules give to a path.
type attributes struct{ owner, mode string }

// placed is a group of paths with the same attributes.
type placed struct {
	attributes
	paths []string
}

// put calls m.Put, and then sets owners and permissions according to m's upload rules. If only
// root may write to the destination, put uploads to a temporary directory first, and copies the
// files from there as root.
func put(ctx context.Context, m builder.Machine, dir string, src fs.FS) error {
	if len(m.Uploads) == 0 {
		return m.Put(ctx, dir, src)
	}
	to := dir
	if strings.HasPrefix(dir, "~") && m.Data["ConnType"].Text != "winrm" {
		var err error
		if to, err = remote.Resolve(ctx, m, dir); err != nil {
			return err
		}
	}
	names, groups, err := sort(m.Uploads, dir, to, src)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	if len(groups) > 0 && m.Data["ConnType"].Text == "winrm" {
		return fmt.Errorf("upload: bake files give %s an owner or permissions, which a machine reached by WinRM does not have", dir)
	}
	err = m.Put(ctx, dir, src)
	roots := len(groups) > 0 && denied(err)
	if roots {
		err = putAsRoot(ctx, m, to, src, names)
	}
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := g.apply(ctx, m, roots); err != nil {
			return err
		}
	}
	return nil
}

// denied reports whether err means that the user may not write there.
func denied(err error) bool {
	here := (*fs.PathError)(nil)
	return errors.Is(err, fs.ErrPermission) && !errors.As(err, &here)
}

// sort returns the names in a tree, and groups of the paths that rules apply to. The destination
// of the tree is dir, whose path without links is to. Later rules override earlier ones.
func sort(rules []*builder.Upload, dir, to string, src fs.FS) (names []string, groups []*placed, err error) {
	at := map[attributes]*placed{}
	err = fs.WalkDir(src, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		names = append(names, name)
		var info fs.FileInfo
		if info, err = fs.Stat(src, name); err != nil { // the target of a link
			return err
		}
		a := combined(rules, info.IsDir(), path.Join(dir, name), path.Join(to, name))
		if a == (attributes{}) {
			return nil
		}
		if at[a] == nil {
			at[a] = &placed{attributes: a}
			groups = append(groups, at[a])
		}
		at[a].paths = append(at[a].paths, path.Join(to, name))
		return nil
	})
	return names, groups, err
}

// combined returns the result of all rules for a path with two spellings.
func combined(rules []*builder.Upload, isDir bool, as, is string) attributes {
	var owner, group, mode string
	for _, r := range rules {
		if !r.Matches(as) && !r.Matches(is) {
			continue
		}
		owner, group = cmp.Or(r.Owner, owner), cmp.Or(r.Group, group)
		if isDir {
			mode = cmp.Or(r.DirectoryMode, mode)
		} else {
			mode = cmp.Or(r.Mode, mode)
		}
	}
	if group != "" {
		owner += ":" + group
	}
	return attributes{owner, mode}
}

// apply sets the attributes of the paths, as root if the owner changes or if root has written
// the files.
func (p *placed) apply(ctx context.Context, m builder.Machine, roots bool) error {
	var commands []string
	if p.mode != "" {
		commands = append(commands, shellquote.Join("chmod", "--", p.mode)+` "$@"`)
	}
	as := ""
	if p.owner != "" { // first, because chown clears set-user-ID bits
		commands = append([]string{shellquote.Join("chown", "--", p.owner) + ` "$@"`}, commands...)
	}
	if roots || p.owner != "" {
		as = asRoot
	}
	return onAll(ctx, m, as, strings.Join(commands, " && "), p.paths)
}

// asRoot sets the shell variable as to the command that makes another login user root, if there is
// sudo.
const asRoot = `if [ "$(id -u)" != 0 ] && command -v sudo >/dev/null; then as='sudo -n'; fi; `

// onAll runs a script with the paths as arguments, several times if there are too many for one
// call.
func onAll(ctx context.Context, m builder.Machine, as, script string, paths []string) error {
	var list bytes.Buffer
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") {
			p = "./" + p
		}
		list.WriteString(p + "\x00")
	}
	line := shellquote.Join("sh", "-c", "as=; "+as+"$as xargs -0 "+shellquote.Join("sh", "-c", script, "sh"))
	return run(ctx, m, communicator.Command{Line: line, Stdin: &list})
}

// run runs a command, and returns an error if it fails.
func run(ctx context.Context, m builder.Machine, c communicator.Command) error {
	errOut := communicator.Head{Max: 4 << 10}
	c.Stderr = &errOut
	st, err := m.Run(ctx, c)
	if err == nil && st.Code != 0 {
		err = fmt.Errorf("upload: the machine says: %s (exit status %d)", strings.TrimSpace(errOut.String()), st.Code)
	}
	return err
}

// putAsRoot writes a tree, with the given names, to a directory that only root may write to.
// Like Put, it does not change existing directories.
func putAsRoot(ctx context.Context, m builder.Machine, dir string, src fs.FS, names []string) (err error) {
	out := communicator.Head{Max: 4 << 10}
	if err := run(ctx, m, communicator.Command{Line: "mktemp -d", Stdout: &out}); err != nil {
		return err
	}
	lines := strings.Fields(out.String()) // a login shell may print a greeting first
	if len(lines) == 0 || !strings.HasPrefix(lines[len(lines)-1], "/") {
		return fmt.Errorf("upload: mktemp on the machine gives no directory, but %q", out.String())
	}
	tmp := lines[len(lines)-1]
	remove := func(ctx context.Context) error {
		rm := shellquote.Join("rm", "-rf", "--", tmp) // -f, because directories may be read-only
		return run(ctx, m, communicator.Command{Line: shellquote.Join("sh", "-c", rm+" 2>/dev/null || { as=; "+asRoot+"$as "+rm+"; }")})
	}
	defer func() {
		if rerr := remove(context.WithoutCancel(ctx)); rerr != nil {
			m.Leftovers.Add(builder.Leftover{Path: tmp, Remove: remove})
		}
	}()
	if err := m.Put(ctx, tmp, src); err != nil {
		return err
	}
	script := "from=" + shellquote.Join(tmp) + " to=" + shellquote.Join(dir) + `
for f do
	if [ -d "$from/$f" ]; then
		[ -d "$to/$f" ] || { mkdir -- "$to/$f" && chmod -- "$(stat -c %a -- "$from/$f")" "$to/$f"; }
	else
		cp -- "$from/$f" "$to/$f" && chmod -- "$(stat -c %a -- "$from/$f")" "$to/$f"
	fi || exit 1
done`
	return onAll(ctx, m, asRoot, script, names)
}
