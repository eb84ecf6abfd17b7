package winrm

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Of a download that fails no part of a file is left, and a directory that leads back to itself
// ends it.
func TestReceiveFails(t *testing.T) {
	text := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	loop := ""
	for i := 1; i < 15; i++ {
		loop += "d " + text("d"+strings.Repeat("/back", i)) + "\n"
	}
	for name, tt := range map[string]struct{ sent, want string }{
		"cut":     {"f " + text("file") + "\nc " + text("half") + "\n", "unexpected EOF"},
		"garbage": {"f " + text("file") + "\nc " + text("half") + "\nx\n", "not a file"},
		"loop":    {loop, "d/back: a symbolic link on the machine leads to a directory that contains it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if err := receive(strings.NewReader(tt.sent), root); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "file")); !os.IsNotExist(err) {
				t.Errorf("a part of the file is left: %v", err)
			}
		})
	}
}
