# bake: get
# Writes a file, a directory, or what is in it (%CONTENTS%) to the output, as put
# reads it.
# Exit status: 3 it does not exist, 1 anything else.
$ProgressPreference = 'SilentlyContinue'
$ErrorActionPreference = 'Stop'
function Text($b) { [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($b)) }
function Base64($s) { [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($s)) }
function Full($p) {
  if ($p -eq '~' -or $p.StartsWith('~/') -or $p.StartsWith('~\')) { return $env:USERPROFILE + $p.Substring(1) }
  return [IO.Path]::Combine($env:USERPROFILE, $p)
}
function Send($item, $name) {
  if ($item -is [IO.DirectoryInfo]) {
    if ($name -ne '') { [Console]::Out.WriteLine('d ' + (Base64 $name)); $name += '/' }
    foreach ($child in $item.GetFileSystemInfos()) { Send $child ($name + $child.Name) }
    return
  }
  $file = [IO.File]::Open($item.FullName, 'Open', 'Read', 'ReadWrite')
  try {
    [Console]::Out.WriteLine('f ' + (Base64 $name))
    $buffer = New-Object byte[] 73728
    while (($n = $file.Read($buffer, 0, $buffer.Length)) -gt 0) { [Console]::Out.WriteLine('c ' + [Convert]::ToBase64String($buffer, 0, $n)) }
    [Console]::Out.WriteLine('e')
  } finally { $file.Close() }
}
try {
  $path = Full (Text '%ROOT%')
  if ([IO.Directory]::Exists($path)) { $item = New-Object IO.DirectoryInfo $path }
  elseif ([IO.File]::Exists($path)) { $item = New-Object IO.FileInfo $path }
  else { [Console]::Error.WriteLine("$path does not exist"); [Environment]::Exit(3) }
  $name = $item.Name
  if ('%CONTENTS%' -eq 'yes' -and $item -is [IO.DirectoryInfo]) { $name = '' }
  Send $item $name
  [Console]::Out.Flush()
} catch {
  $e = $_.Exception
  while ($e.InnerException) { $e = $e.InnerException }
  [Console]::Error.WriteLine($e.Message)
  [Environment]::Exit(1)
}
