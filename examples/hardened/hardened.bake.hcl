# The machine is hardened, checked, and made an image only if every rule is kept. A
# machine of the image is started, restarted and checked again before anybody gets it. What
# was found is in the directory reports, as JSON, JUnit and SARIF.

bake {
  reports = "reports"
}

image "hardened" {
  sources = ["amazon-ebs.hardened"]

  checks "baseline" {
    files     = ["bake:baseline"]
    remediate = true
    gate {
      max_failed     = { critical = 0, high = 0, medium = 0, low = 0 }
      min_applicable = 60
    }
  }

  verify "boot" {
    reboots = 1
    checks  = ["bake:baseline"]
  }
}
