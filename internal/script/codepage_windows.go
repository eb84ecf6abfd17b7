package script

import (
	"errors"
	"os/exec"
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/windows"
)

// codePage returns the code page in which cmd.exe reads scripts and many programs write: that of the
// console, or of the system if there is none.
func codePage() uint32 {
	if page, err := windows.GetConsoleOutputCP(); err == nil && page != 0 {
		return page
	}
	page, _, _ := windows.NewLazySystemDLL("kernel32.dll").NewProc("GetOEMCP").Call()
	return uint32(page)
}

const pageUTF8 = 65001

// toPage converts a text to the [codePage]. It returns false if that lacks some of its
// characters.
func toPage(text string) (string, bool) {
	page := codePage()
	if page == pageUTF8 {
		return text, true
	}
	const noBestFit = 0x400 // WC_NO_BEST_FIT_CHARS
	wide := utf16.Encode([]rune(text))
	coded := make([]byte, 4*len(wide))
	var lost int32
	n, _, _ := windows.NewLazySystemDLL("kernel32.dll").NewProc("WideCharToMultiByte").Call(
		uintptr(page), noBestFit, uintptr(unsafe.Pointer(&wide[0])), uintptr(len(wide)),
		uintptr(unsafe.Pointer(&coded[0])), uintptr(len(coded)), 0, uintptr(unsafe.Pointer(&lost)))
	return string(coded[:n]), n > 0 && lost == 0
}

// fromPage converts text from the [codePage] to UTF-8, or returns it unchanged if it
// cannot be converted.
func fromPage(coded []byte) []byte {
	wide := make([]uint16, len(coded))
	n, err := windows.MultiByteToWideChar(codePage(), 0, &coded[0], int32(len(coded)), &wide[0], int32(len(wide)))
	if err != nil {
		return coded
	}
	return []byte(string(utf16.Decode(wide[:n])))
}

// run runs a command, whose output is read in UTF-8.
func (l *Local) run(cmd *exec.Cmd, run func(*exec.Cmd) error) error {
	out, errOut := &recoded{out: l.Stdout, fromPage: fromPage}, &recoded{out: l.Stderr, fromPage: fromPage}
	cmd.Stdout, cmd.Stderr = out, errOut
	return errors.Join(run(cmd), out.flush(), errOut.flush())
}

// encoded returns the text of an inline script as its interpreter reads it, see [encode].
func (l *Local) encoded(text string) (coded string, whole bool) {
	if !l.windows() {
		return text, true
	}
	return encode(text, l.extension(), toPage)
}
