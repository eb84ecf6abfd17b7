package winrm

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Names in the requests of Windows' remote shell: [MS-WSMV], "Web Services Management
// Protocol Extensions for Windows Vista".
const (
	shellNamespace = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	shellResource  = shellNamespace + "/cmd"
	transferCreate = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Create"
	transferDelete = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Delete"
)

// maxEnvelope is how large an answer may be: what every machine can send.
const maxEnvelope = 153600

// option is an option of a request.
type option struct{ name, value string }

// request is a request to the service at url.
type request struct {
	url, action string
	shell       string // that it is about; empty if it makes one
	options     []option
	body        string // XML
}

// String returns the request in the form in which it is sent, with a new identifier.
func (r request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="utf-8"?>`+
		`<env:Envelope xmlns:env="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"`+
		` xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd" xmlns:rsp="%s">`+
		`<env:Header><a:To>%s</a:To>`+
		`<a:ReplyTo><a:Address mustUnderstand="true">http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>`+
		`<w:MaxEnvelopeSize mustUnderstand="true">%d</w:MaxEnvelopeSize><w:OperationTimeout>PT%dS</w:OperationTimeout>`+
		`<a:MessageID>uuid:%s</a:MessageID>`+
		`<w:Locale mustUnderstand="false" xml:lang="en-US"/><p:DataLocale mustUnderstand="false" xml:lang="en-US"/>`+
		`<a:Action mustUnderstand="true">%s</a:Action>`,
		shellNamespace, escaped(r.url), maxEnvelope, int(operationTimeout.Seconds()), uuid.New(), r.action)
	if r.shell != "" {
		fmt.Fprintf(&b, `<w:SelectorSet><w:Selector Name="ShellId">%s</w:Selector></w:SelectorSet>`, escaped(r.shell))
	}
	fmt.Fprintf(&b, `<w:ResourceURI mustUnderstand="true">%s</w:ResourceURI>`, shellResource)
	if len(r.options) > 0 {
		b.WriteString(`<w:OptionSet>`)
		for _, o := range r.options {
			fmt.Fprintf(&b, `<w:Option Name="%s">%s</w:Option>`, o.name, o.value)
		}
		b.WriteString(`</w:OptionSet>`)
	}
	b.WriteString(`</env:Header><env:Body>` + r.body + `</env:Body></env:Envelope>`)
	return b.String()
}

// escaped is text for XML, in an element or an attribute.
func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // the builder takes everything
	return b.String()
}

// checkText returns an error for text that XML cannot hold: most control characters, and
// invalid UTF-8.
func checkText(text string) error {
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 || r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return fmt.Errorf("the command line has %q, which WinRM cannot send; put what has it into a file and upload that", text[i:i+size])
		}
	}
	return nil
}

// openRequest makes a shell that reads and writes UTF-8.
func openRequest(url string) request {
	return request{
		url: url, action: transferCreate, options: []option{{"WINRS_NOPROFILE", "FALSE"}, {"WINRS_CODEPAGE", "65001"}},
		body: `<rsp:Shell><rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>`,
	}
}

// request is a request about the shell.
func (s *shell) request(action, body string) request {
	return request{url: s.at.url, action: shellNamespace + "/" + action, shell: s.id, body: body}
}

// deleteRequest ends the shell, and what runs in it.
func (s *shell) deleteRequest() request {
	return request{url: s.at.url, action: transferDelete, shell: s.id}
}

// commandRequest starts a command line, which cmd.exe reads.
func (s *shell) commandRequest(line string) request {
	r := s.request("Command", `<rsp:CommandLine><rsp:Command>`+escaped(line)+`</rsp:Command></rsp:CommandLine>`)
	r.options = []option{{"WINRS_CONSOLEMODE_STDIN", "TRUE"}, {"WINRS_SKIP_CMD_SHELL", "FALSE"}}
	return r
}

// receiveRequest asks for output of a command.
func (s *shell) receiveRequest(command string) request {
	return s.request("Receive", fmt.Sprintf(`<rsp:Receive><rsp:DesiredStream CommandId="%s">stdout stderr</rsp:DesiredStream></rsp:Receive>`, escaped(command)))
}

// sendRequest sends input to a command; end marks the last input.
func (s *shell) sendRequest(command string, input []byte, end bool) request {
	last := ""
	if end {
		last = ` End="true"`
	}
	return s.request("Send", fmt.Sprintf(`<rsp:Send><rsp:Stream Name="stdin" CommandId="%s"%s>%s</rsp:Stream></rsp:Send>`,
		escaped(command), last, base64.StdEncoding.EncodeToString(input)))
}
