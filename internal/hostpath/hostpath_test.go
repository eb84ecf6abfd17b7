package hostpath_test

import (
	"path/filepath"
	"runtime"
	"testing"

	"bake/internal/hostpath"
)

func TestIn(t *testing.T) {
	wd, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	type in struct{ dir, path string }
	want := map[in]string{
		{"/srv", "a/../b"}: "/srv/b", {"/srv", "/x/y"}: "/x/y", {"/srv", ""}: "/srv", {".", "a"}: "a", {".", "/x"}: "/x",
		{"/srv", `\x`}: `/srv/\x`, {"/srv", "C:x"}: "/srv/C:x",
	}
	if runtime.GOOS == "windows" {
		drive := filepath.VolumeName(wd)
		want = map[in]string{
			{`D:\work`, `a\..\b`}: `D:\work\b`, {`D:\work`, `E:\x`}: `E:\x`, {`D:\work`, "e:/x"}: "e:/x", {`D:\work`, ""}: `D:\work`,
			{`D:\work`, `\x\y`}: `D:\x\y`, {`D:\work`, "/x/y"}: "D:/x/y", {`\\server\share\work`, `\x`}: `\\server\share\x`, {".", "/x"}: "/x",
			{`D:\work`, `\\server\share\x`}: `\\server\share\x`, {`D:\work`, drive + "x"}: filepath.Join(wd, "x"),
		}
	}
	for in, out := range want {
		if got := hostpath.In(in.dir, in.path); got != out {
			t.Errorf("In(%q, %q) is %q, want %q", in.dir, in.path, got, out)
		}
	}
}
