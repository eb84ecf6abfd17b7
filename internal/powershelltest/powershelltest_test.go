package powershelltest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The interpreter behaves like PowerShell, as far as it supports the language.
func TestLanguage(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "seven.ps1"), []byte("param($a)\r\n\"got $a\"\r\n$inner = 1\r\nexit 7\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "env.ps1"), []byte("$env:A=\"x`$y`\"z\"; ${env:B(x)}=\"b\"; "), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		src, out, errOut string
		code             int
	}{
		{`'it''s'; "a $(1 + 2) ${env:HOME}b"`, "it's\na 3 /hb\n", "", 0},
		{"\"`$x `\"q`\" `n.\"", "$x \"q\" \n.\n", "", 0},
		{`$x = @(1, 2) + 3; $x.Count; "$x"; $x[1]`, "3\n1 2 3\n2\n", "", 0},
		{`if ($false) { 'a' } elseif (1 -eq 1 -and -not $null) { 'b' } else { 'c' }`, "b\n", "", 0},
		{`$n = 0; do { $n += 1 } until ($n -ge 3); while ($n -gt 0) { $n += -1 }; "n=$n"`, "n=0\n", "", 0},
		{`foreach ($x in 'a', 'b') { $x }; 'c', 'd' | Where-Object { $_ -ne 'd' } | ForEach-Object { "<$_>" }`, "a\nb\n<c>\n", "", 0},
		{`function Twice($a) { return $a + $a }; $y = Twice 'q'; $y`, "qq\n", "", 0},
		{`try { 'one'; throw 'bad'; 'two' } catch { "caught $_ " + $_.Exception.Message } finally { 'end' }`, "one\ncaught bad bad\nend\n", "", 0},
		{`try { exit 4 } finally { 'end' }; 'no'`, "end\n", "", 4},
		{`throw 'bad'`, "", "bad\n", 1},
		{`& 'seven.ps1' 'x'; "code $LASTEXITCODE $inner"`, "got x\ncode 7 \n", "", 0},
		{`. env.ps1; "$env:A ${env:B(x)}"`, "x$y\"z b\n", "", 0},
		{`. seven.ps1; 'no'`, "got \n", "", 7},
		{`'a'; fail 3; 'b'; exit $LastExitCode`, "a\nran fail\nb\n", "", 3},
		{`Set-StrictMode -Version Latest; Test-Path variable:global:LASTEXITCODE; $LASTEXITCODE`, "False\n", "The variable '$lastexitcode' cannot be retrieved because it has not been set.\n", 1},
		{`Remove-Item -LiteralPath 'none' -ErrorAction SilentlyContinue; $ErrorActionPreference = 'Stop'; Remove-Item none; 'no'`, "", "Remove-Item: ", 1},
		{`$null.Call()`, "", "null-valued", 1},
		{`echo ('{0} up' -f 'it'); [void]'x'; [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('aGk='))`, "it up\nhi\n", "", 0},
		{`"$a: x"`, "", "a variable with a drive", 1},
		{`'no end`, "", "without end", 1},
		{`nothing-here 1`, "", "not recognized", 1},
	} {
		var out, errOut bytes.Buffer
		h := &Host{
			Stdout: &out, Stderr: &errOut, Env: map[string]string{"HOME": "/h"},
			Path: func(p string) string { return filepath.Join(dir, p) },
			Native: func(h *Host, words []string) int {
				if words[0] != "fail" {
					return NotFound
				}
				h.Stdout.Write([]byte("ran fail\n"))
				return int(words[1][0] - '0')
			},
		}
		code := Main(h, []string{"-executionpolicy", "bypass", "-command", tt.src})
		if code != tt.code || out.String() != tt.out || !strings.Contains(errOut.String(), tt.errOut) || tt.errOut == "" && errOut.Len() > 0 {
			t.Errorf("%s:\n got %d, %q, %q\nwant %d, %q, %q", tt.src, code, out.String(), errOut.String(), tt.code, tt.out, tt.errOut)
		}
	}
}
