# The machine is hardened, checked, and made an image only if every rule is kept. A
# machine of the image is started, restarted and checked again before anybody gets it.

image "hardened" {
  sources = ["amazon-ebs.hardened"]

  checks "baseline" {
    files     = ["bake:baseline"]
    remediate = true
  }

  verify "boot" {
    reboots = 1
    checks  = ["bake:baseline"]
  }
}
