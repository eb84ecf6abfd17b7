package winrm

import (
	"encoding/xml"
	"strings"
	"testing"
)

// sent is a request as parsed by a machine, which uses namespaces.
type sent struct {
	XMLName xml.Name `xml:"http://www.w3.org/2003/05/soap-envelope Envelope"`
	Header  struct {
		To       string `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing To"`
		ID       string `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing MessageID"`
		Action   string `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing Action"`
		Resource string `xml:"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd ResourceURI"`
		Timeout  string `xml:"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd OperationTimeout"`
		Shell    string `xml:"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd SelectorSet>Selector"`
		Options  []struct {
			Name  string `xml:",attr"`
			Value string `xml:",chardata"`
		} `xml:"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd OptionSet>Option"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Header"`
	Body struct {
		Shell struct {
			In  string `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell InputStreams"`
			Out string `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell OutputStreams"`
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Shell"`
		Command string `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell CommandLine>Command"`
		Desired struct {
			ID      string `xml:"CommandId,attr"`
			Streams string `xml:",chardata"`
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Receive>DesiredStream"`
		Stream struct {
			Name string `xml:",attr"`
			ID   string `xml:"CommandId,attr"`
			End  bool   `xml:",attr"`
			Text string `xml:",chardata"`
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Send>Stream"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Body"`
}

func read(t *testing.T, r request) (s sent) {
	t.Helper()
	if err := xml.Unmarshal([]byte(r.String()), &s); err != nil {
		t.Fatalf("%v\n%s", err, r)
	}
	if s.Header.Timeout != "PT60S" || s.Header.Resource != "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd" {
		t.Errorf("headers %+v", s.Header)
	}
	return s
}

// TestRequests: a machine finds bake's values in a request. Identifiers come from the machine, and
// may be hostile.
func TestRequests(t *testing.T) {
	const url = "http://[2001:db8::1]:5985/wsman?a&b"
	open := read(t, openRequest(url))
	if h := open.Header; h.To != url || h.Action != "http://schemas.xmlsoap.org/ws/2004/09/transfer/Create" || h.Shell != "" {
		t.Errorf("open: %+v", h)
	}
	if o := open.Header.Options; len(o) != 2 || o[1].Name != "WINRS_CODEPAGE" || o[1].Value != "65001" {
		t.Errorf("open: options %v", o)
	}
	if b := open.Body.Shell; b.In != "stdin" || b.Out != "stdout stderr" {
		t.Errorf("open: %+v", b)
	}
	if again := read(t, openRequest(url)); !strings.HasPrefix(open.Header.ID, "uuid:") || again.Header.ID == open.Header.ID {
		t.Errorf("identifiers %q, %q", open.Header.ID, again.Header.ID)
	}

	const id, command = `"<id>&`, `'x"></rsp:Send>`
	s := &shell{at: endpoint{url: url}, id: id}
	for action, r := range map[string]request{
		"http://schemas.xmlsoap.org/ws/2004/09/transfer/Delete":           s.deleteRequest(),
		"http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Command": s.commandRequest("x"),
		"http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Receive": s.receiveRequest(command),
		"http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Send":    s.sendRequest(command, nil, false),
	} {
		if h := read(t, r).Header; h.Action != action || h.Shell != id || h.To != url {
			t.Errorf("%s: %+v", action, h)
		}
	}
	for _, line := range []string{`a <b> & "c" 'd' ]]> %PATH%`, "<![CDATA[x]]>", "ü世\t|"} {
		if got := read(t, s.commandRequest(line)); got.Body.Command != line {
			t.Errorf("command %q arrives as %q", line, got.Body.Command)
		}
	}
	if o := read(t, s.commandRequest("x")).Header.Options; len(o) != 2 || o[0].Name != "WINRS_CONSOLEMODE_STDIN" || o[0].Value != "TRUE" || o[1].Name != "WINRS_SKIP_CMD_SHELL" || o[1].Value != "FALSE" {
		t.Errorf("command: options %v", o)
	}
	if d := read(t, s.receiveRequest(command)).Body.Desired; d.ID != command || d.Streams != "stdout stderr" {
		t.Errorf("receive: %+v", d)
	}
	if got := read(t, s.sendRequest(command, []byte("hi\x00"), true)).Body.Stream; got.Name != "stdin" || got.ID != command || got.Text != "aGkA" || !got.End {
		t.Errorf("send: %+v", got)
	}
	if got := read(t, s.sendRequest(command, nil, false)).Body.Stream; got.End {
		t.Error("the end of the input is there before it is")
	}
}

// TestCheckText: a text is sent unchanged or refused.
func TestCheckText(t *testing.T) {
	for text, want := range map[string]string{
		"echo \t\r\n äöü \u00a0 \U0001f600 \ufffd": "",
		"echo \x1b[1m":    `"\x1b"`,
		"echo caf\xe9":    `"\xe9"`,
		"echo \x00":       `"\x00"`,
		"echo \uffff end": `"\uffff"`,
	} {
		err := checkText(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), "has "+want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if got := read(t, (&shell{id: "S"}).commandRequest(text)).Body.Command; want == "" && got != text {
			t.Errorf("%q is sent as %q", text, got)
		}
	}
}
