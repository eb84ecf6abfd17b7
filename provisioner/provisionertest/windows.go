package provisionertest

import (
	"testing"
	"time"

	"bake/builder"
	"bake/communicator/winrm"
	"bake/communicator/winrm/winrmtest"
)

// Windows starts a simulated Windows machine, and connects to it by WinRM. A restart
// makes it unreachable for a moment.
func Windows(t testing.TB) (*winrmtest.Server, builder.Machine) {
	t.Helper()
	srv := winrmtest.Serve(t, t.TempDir(), false)
	srv.Windows = winrmtest.NewWindows(t)
	srv.Windows.Restart = func() {
		time.Sleep(50 * time.Millisecond) // so that the restart command is answered
		srv.Down()
		time.Sleep(300 * time.Millisecond)
		srv.Up()
	}
	o := winrm.Defaults()
	o.WinRMHost, o.WinRMPort, o.WinRMUsername, o.WinRMPassword = srv.Host, srv.Port, srv.User, srv.Password
	s, _ := Scope(t)
	c, err := winrm.Connect(t.Context(), s, &o, 0, winrm.Target{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return srv, builder.Machine{
		Communicator: c, Leftovers: new(builder.Leftovers),
		Data: builder.MachineData(c, builder.Facts{RunID: "run", ID: "i-test", Communicator: "winrm"}),
	}
}
