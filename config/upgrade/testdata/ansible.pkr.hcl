packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1"
    }
    ansible = {
      source  = "github.com/hashicorp/ansible"
      version = "~> 1"
    }
    chef = {
      source  = "github.com/hashicorp/chef"
      version = "~> 1"
    }
    puppet = {
      source  = "github.com/hashicorp/puppet"
      version = "~> 1"
    }
    salt = {
      source  = "github.com/hashicorp/salt"
      version = "~> 1"
    }
  }
}

variable "env" {
  type = string
}

source "null" "a" {
  communicator = "none"
}

source "amazon-ebs" "b" {}

build {
  sources = ["source.null.a", "source.amazon-ebs.b"]

  provisioner "ansible" {
    playbook_file = "${path.root}/site.yml"
    groups        = ["web"]
    user          = "ubuntu"
    extra_arguments = [
      "--extra-vars",
      "{\"env\": \"${var.env}\", \"list\": [1, 2]}",
      "-vvv",
    ]
    ansible_env_vars = [
      "ANSIBLE_HOST_KEY_CHECKING=False",
      "ANSIBLE_SSH_ARGS='-o ForwardAgent=yes -o ControlMaster=auto'",
    ]
    except = ["null.a"]
  }

  provisioner "puppet-masterless" {
    facter = {
      role = {
        name = "web"
      }
    }
    manifest_file = "site.pp"
  }

  provisioner "chef-solo" {
    cookbook_paths = ["cookbooks"]
    run_list       = ["recipe[a]"]
    json = {
      a = {
        b = ["c", 1, true, null]
      }
    }
  }

  provisioner "salt-masterless" {
    local_state_tree = "salt"
  }
}
