# bake: elevated
# Runs a command line as another user with all privileges, which only the task
# scheduler can do: makes a task, starts it, shows what it writes, and ends as it does.
# The texts in quotes are UTF-8 in base64.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
function Text($b) { [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($b)) }
$name = Text '%TASK%'
$user = Text '%USER%'
$password = Text '%PASSWORD%'
$command = Text '%COMMAND%'
$log = [Environment]::ExpandEnvironmentVariables((Text '%LOG%'))
$script:reader = $null
function Show {
  if (-not $script:reader) {
    if (-not [IO.File]::Exists($log)) { return }
    # Programs that write to a file use the code page of consoles.
    $codePage = [Globalization.CultureInfo]::CurrentCulture.TextInfo.OEMCodePage
    $stream = New-Object IO.FileStream($log, [IO.FileMode]::Open, [IO.FileAccess]::Read, [IO.FileShare]::ReadWrite)
    $script:reader = New-Object IO.StreamReader($stream, [Text.Encoding]::GetEncoding($codePage))
  }
  [Console]::Out.Write($script:reader.ReadToEnd())
}
$code = 1
$folder = $null
$running = $null
try {
  $service = New-Object -ComObject 'Schedule.Service'
  $service.Connect()
  $folder = $service.GetFolder('\')
  $task = $service.NewTask(0)
  $task.RegistrationInfo.Description = 'Packer elevated task'
  $task.Principal.RunLevel = 1
  $task.Settings.ExecutionTimeLimit = 'PT0S'
  $task.Settings.DisallowStartIfOnBatteries = $false
  $task.Settings.StopIfGoingOnBatteries = $false
  $task.Settings.Priority = 4
  $action = $task.Actions.Create(0)
  $action.Path = 'cmd'
  $action.Arguments = '/d /s /c "' + $command + ' > "' + $log + '" 2>&1"'
  $logon = 1
  if ($password.Length -eq 0) {
    $logon = 5
    $password = $null
  }
  $running = $folder.RegisterTaskDefinition($name, $task, 6, $user, $password, $logon, $null)
  [void]$running.Run($null)
  # 267009 is the result of a task that runs, 267011 that of one that has not run yet,
  # 267045 that of one that is queued; the state 3 is that of one that does not run.
  $waited = 0
  do {
    Start-Sleep -Milliseconds 100
    Show
    $state = $running.State
    $code = $running.LastTaskResult
    if ($state -eq 3 -and $code -eq 267011) {
      $waited += 1
      if ($waited -gt 600) { throw 'the task scheduler did not start the task within a minute' }
    }
  } until ($state -eq 3 -and $code -ne 267009 -and $code -ne 267011 -and $code -ne 267045)
  Show
} catch {
  [Console]::Error.WriteLine("running the script as ${user}: " + $_.Exception.Message)
  $code = 1
} finally {
  if ($running) {
    try { $running.Stop(0) } catch { }
    try { $folder.DeleteTask($name, 0) } catch { }
  }
  if ($script:reader) { $script:reader.Close() }
  Remove-Item -LiteralPath $log, $MyInvocation.MyCommand.Path -Force -ErrorAction SilentlyContinue
}
exit $code
