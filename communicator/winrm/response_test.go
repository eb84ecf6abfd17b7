package winrm

import (
	"strings"
	"testing"
)

func receiptOf(body string) string {
	return `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:rsp="http://schemas.microsoft.com/wbem/wsman/1/windows/shell"><s:Body><rsp:ReceiveResponse>` + body + `</rsp:ReceiveResponse></s:Body></s:Envelope>`
}

const done = `<rsp:CommandState State="http://schemas.microsoft.com/wbem/wsman/1/windows/shell/CommandState/Done">`

func TestReceipt(t *testing.T) {
	for _, tt := range []struct {
		body, out string
		done      bool
		code      int
		err       string
	}{
		{`<rsp:Stream Name="stdout">aGk=</rsp:Stream><rsp:Stream Name="stderr">bm8=</rsp:Stream><rsp:Stream Name="stdout"> IQ==
</rsp:Stream><rsp:Stream Name="stdout" End="true"/>` + done + `<rsp:ExitCode>7</rsp:ExitCode></rsp:CommandState>`, "hi[no]!", true, 7, ""},
		{`<rsp:CommandState State="http://schemas.microsoft.com/wbem/wsman/1/windows/shell/CommandState/Running"/>`, "", false, 0, ""},
		{done + `<rsp:ExitCode>-1073741510</rsp:ExitCode></rsp:CommandState>`, "", true, -1073741510, ""},
		{done + `<rsp:ExitCode>3221225786</rsp:ExitCode></rsp:CommandState>`, "", true, 3221225786, ""},
		{done + `</rsp:CommandState>`, "", false, 0, "exit status"},
		{done + `<rsp:ExitCode>zero</rsp:ExitCode></rsp:CommandState>`, "", false, 0, "exit status"},
		{done + `<rsp:ExitCode>99999999999</rsp:ExitCode></rsp:CommandState>`, "", false, 0, "exit status"},
		{`<rsp:Stream Name="stdout">a?</rsp:Stream>` + done + `<rsp:ExitCode>0</rsp:ExitCode></rsp:CommandState>`, "", false, 0, "cannot be read"},
	} {
		var out strings.Builder
		done, code, err := parseReceipt(receiptOf(tt.body), func(stderr bool, b []byte) error {
			if stderr {
				b = []byte("[" + string(b) + "]")
			}
			out.Write(b)
			return nil
		})
		if done != tt.done || code != tt.code || out.String() != tt.out || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %t, %d, %q, %v", tt.body, done, code, out.String(), err)
		}
	}
	const old = `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><x:ResourceCreated xmlns:x="t"><a:ReferenceParameters xmlns:a="a"><w:SelectorSet xmlns:w="w"><w:Selector Name="ShellId">ABC</w:Selector></w:SelectorSet></a:ReferenceParameters></x:ResourceCreated></s:Body></s:Envelope>`
	if id, err := parseShell(old); id != "ABC" || err != nil {
		t.Errorf("got %q, %v", id, err)
	}
}

func FuzzReceipt(f *testing.F) {
	f.Add(receiptOf(done + `<rsp:ExitCode>7</rsp:ExitCode></rsp:CommandState>`))
	f.Fuzz(func(t *testing.T, text string) {
		done, _, err := parseReceipt(text, func(bool, []byte) error { return nil })
		if done && err != nil {
			t.Error("done, and an error")
		}
	})
}
