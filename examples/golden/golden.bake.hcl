# What is asked of the images of golden.pkr.hcl. README.md explains how they are used.

bake {
  reports = "reports"
}

build {
  timeout = "1h"
}

image "base" {
  build = "base"

  # Updates of Debian are in no file here: the image is built anew once a week anyway.
  inputs {
    max_age = "7d"
  }

  # The machine is hardened, and no image is made of it unless it keeps every rule.
  checks "baseline" {
    files     = ["bake:baseline"]
    remediate = true
    gate {
      max_failed     = { critical = 0, high = 0, medium = 0, low = 0 }
      min_applicable = 60
    }
  }

  # A program that gives its user another user's rights must be on the list.
  scan "command" {
    name    = "setuid"
    command = file("scans/setuid.sh")
    format  = "tap"
    gate {
      waivers = "${path.root}/waivers.hcl"
    }
  }

  sbom {
    formats = ["cyclonedx", "spdx"]
  }

  verify "boot" {
    reboots = 1
    checks  = ["${path.root}/goss/base.yaml"]
  }

  # Whoever gets the image can tell what it was made from, and that nobody has changed it.
  provenance {
    key = var.signing_key
  }

  channel "stable" {
    requires = ["checks.baseline", "scan.setuid", "verify.boot"]
  }

  retention {
    keep_last       = 3
    deprecate_after = "30d"
    disable_after   = "60d"
    delete_after    = "120d"
  }
}

image "web" {
  build = "web"
  vars = {
    base_ami = image.base.id
  }

  checks "web" {
    files = ["${path.root}/goss/web.yaml"]
  }

  sbom {
    formats = ["cyclonedx"]
  }

  # A machine of the finished image is started before anybody gets the image.
  verify "boot" {
    timeout = "15m"
    checks  = ["${path.root}/goss/web.yaml"]
    provisioner "shell" {
      inline = ["test \"$(cat /var/www/html/index.html)\" = '${var.page}'"]
    }
    on_failure = "quarantine"
  }

  provenance {
    key = var.signing_key
  }

  distribute {
    regions     = var.copy_to
    accounts    = var.share_with
    all_or_none = true
  }

  # Every night's image that passes is the candidate. It becomes the stable one after a day,
  # if somebody approves it.
  channel "candidate" {
    requires = ["checks.web", "verify.boot"]
  }
  channel "stable" {
    from     = "candidate"
    soak     = "24h"
    approval = true
  }

  retention {
    keep_last       = 5
    deprecate_after = "30d"
    disable_after   = "60d"
    delete_after    = "120d"
  }
}
