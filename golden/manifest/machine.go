package manifest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"bake/communicator"
	"bake/golden/asroot"
	"bake/internal/shellquote"
)

// skipped are directories whose files are not listed: they are not persistent, or belong to
// the running machine.
var skipped = []string{
	"/dev", "/proc", "/run", "/sys", "/tmp", "/var/cache", "/var/lock", "/var/log", "/var/run", "/var/tmp",
}

// listing is the script that lists files, and then the digests of the regular ones. Of the
// file systems other than the root file system, it includes those that the machine boots
// from, and local ones that /etc/fstab mounts, such as /home and /var.
const listing = `
cd ROOT || exit 1
for c in find xargs sha256sum; do command -v "$c" >/dev/null || { echo "the machine has no $c, which is needed to list its files" >&2; exit 1; }; done
find . -maxdepth 0 -printf '' 2>/dev/null || { echo "find on the machine has no -printf: GNU findutils are needed to list its files" >&2; exit 1; }
roots=.
mounted() {
	case " $roots " in *" .$1 "*) return;; esac
	if [ -d ".$1" ] && [ "$(stat -c %d ".$1")" != "$(stat -c %d ".$1/..")" ]; then roots="$roots .$1"; fi
}
mounted /boot
mounted /boot/efi
if [ -r ./etc/fstab ]; then while read -r device at type rest; do
	case $device$at in '#'*|*[\\*?[]*) continue;; esac
	case $type in none|swap|proc|sysfs|devpts|tmpfs|overlay|nfs*|cifs|efs|9p|virtiofs|fuse*) continue;; esac
	case $at in /?*) mounted "${at%/}";; esac
done <./etc/fstab; fi
list() { find $roots -xdev \( SKIPPED \) -prune -o "$@" 2>/dev/null; }
content() {
	list -printf '%y %m %U %G %s\0%p\0%l\0'
	printf 'end\0'
	list -type f -print0 | xargs -0 sha256sum -- 2>/dev/null
	echo end
}
`

// Read lists the files of a machine, as root, in one round trip. It writes nothing there.
func Read(ctx context.Context, on communicator.Communicator) (*Manifest, error) {
	return read(ctx, on, "/")
}

func read(ctx context.Context, on communicator.Communicator, root string) (*Manifest, error) {
	var not []string
	for _, dir := range skipped {
		not = append(not, "-path "+shellquote.Join("."+dir+"/*"))
	}
	m := &Manifest{files: map[string]file{}}
	script := strings.NewReplacer("SKIPPED", strings.Join(not, " -o "), "ROOT", shellquote.Join(root)).Replace(listing)
	err := asroot.Fetch(ctx, on, script, "content", maxBytes, m.parse)
	if err != nil {
		return nil, fmt.Errorf("listing the files of the machine: %w", err)
	}
	return m, nil
}

// parse reads the output of the script.
func (m *Manifest) parse(in io.Reader) error {
	r := bufio.NewReaderSize(in, maxLine)
	for {
		what, err := until(r, 0)
		if err != nil {
			return err
		}
		if what == end {
			break
		}
		path, err := until(r, 0)
		if err != nil {
			return err
		}
		target, err := until(r, 0)
		if err != nil {
			return err
		}
		part := strings.Fields(what)
		if len(part) != 5 {
			return fmt.Errorf("the machine says %.100q, which describes no file", what)
		}
		f, err := parseFile(part[:4])
		if err != nil {
			return err
		}
		switch f.kind {
		case regular:
			if f.size, err = strconv.ParseInt(part[4], 10, 64); err != nil || f.size < 0 {
				return fmt.Errorf("the machine says %.100q, which describes no file", what)
			}
		case link:
			f.target = target
		}
		if err := m.add(absolute(path), f); err != nil {
			return err
		}
	}
	return m.digests(r)
}

// digests reads the output of sha256sum: a backslash before a digest means that the name
// contains backslash escapes for itself and for line ends.
func (m *Manifest) digests(r *bufio.Reader) error {
	escaped := strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r")
	for {
		line, err := until(r, '\n')
		if err != nil || line == end {
			return err
		}
		sum, escapes := strings.CutPrefix(line, `\`)
		sum, path, ok := strings.Cut(sum, " ")
		if !ok || len(path) < 2 {
			return fmt.Errorf("the machine returned %.100q, which is not the digest of a file", line)
		}
		if path = path[1:]; escapes {
			path = escaped.Replace(path)
		}
		f, ok := m.files[absolute(path)]
		if !ok || f.kind != regular { // it is newer than the listing, or was replaced
			continue
		}
		if !f.digest(sum) {
			return fmt.Errorf("the machine returned %.100q, which is not the digest of a file", line)
		}
		m.files[absolute(path)] = f
	}
}

// until reads a text that ends with a byte.
func until(r *bufio.Reader, last byte) (string, error) {
	b, err := r.ReadSlice(last)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("the machine has a path of more than %d kB", maxLine>>10)
	case errors.Is(err, io.EOF):
		return "", errors.New("the output of the machine ends early")
	case err != nil:
		return "", err
	}
	return string(b[:len(b)-1]), nil
}

// absolute converts a path printed by find to one from the root.
func absolute(path string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(path, "."), "/")
}
