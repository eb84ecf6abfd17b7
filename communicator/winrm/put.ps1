# bake: put
# Writes what comes in, a line each, below a directory:
#   d NAME   make a directory
#   f NAME   start a file
#   c DATA   its content, going on
#   e        end it
# Names are UTF-8 in base64, with slashes; DATA is base64.
# Exit status: 3 the directory does not exist, 4 the disk is full, 1 anything else.
begin {
  $ProgressPreference = 'SilentlyContinue'
  $ErrorActionPreference = 'Stop'
  function Text($b) { [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($b)) }
  function Full($p) {
    if ($p -eq '~' -or $p.StartsWith('~/') -or $p.StartsWith('~\')) { return $env:USERPROFILE + $p.Substring(1) }
    return [IO.Path]::Combine($env:USERPROFILE, $p)
  }
  function Fail($code, $text) {
    if ($script:file) { try { $script:file.Close() } catch { } }
    [Console]::Error.WriteLine($text)
    [Environment]::Exit($code)
  }
  function FailWith($e) {
    while ($e.InnerException) { $e = $e.InnerException }
    $code = 1
    if ($e -is [IO.IOException] -and (($e.HResult -band 0xFFFF) -eq 112 -or ($e.HResult -band 0xFFFF) -eq 39)) { $code = 4 }
    Fail $code $e.Message
  }
  $script:file = $null
  $root = Full (Text '%ROOT%')
  if (-not [IO.Directory]::Exists($root)) { Fail 3 "$root does not exist" }
}
process {
  $line = [string]$input
  if ($line.Length -eq 0) { return }
  try {
    $rest = ''
    if ($line.Length -gt 2) { $rest = $line.Substring(2).TrimEnd() }
    switch -CaseSensitive ($line.Substring(0, 1)) {
      'd' { [void][IO.Directory]::CreateDirectory([IO.Path]::Combine($root, (Text $rest))) }
      'f' { $script:file = [IO.File]::Create([IO.Path]::Combine($root, (Text $rest))) }
      'c' { $bytes = [Convert]::FromBase64String($rest); $script:file.Write($bytes, 0, $bytes.Length) }
      'e' { $script:file.Close(); $script:file = $null }
    }
  } catch { FailWith $_.Exception }
}
